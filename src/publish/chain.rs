//! Chains of manifests in a store. Every manifest is a pinned object; the pin's label tells the chain and the place,
//! and the entry with the highest number is the head. No other index exists, so none can disagree.

use cid::Cid;
use pipe_store::{Digest, Store, StoreError};

use super::{KeyError, Link, Manifest, ManifestError, PublicKey, SecretKey};
use crate::bundle::car;

#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    #[error("{cid}: {source}")]
    Manifest { cid: Cid, source: ManifestError },
    #[error("{cid} names {previous} as the entry before it, which is signed by {found}, not by {expected}")]
    Key { cid: Cid, previous: Cid, expected: PublicKey, found: PublicKey },
    #[error(
        "{cid} has number {sequence}, but {previous}, which it names as the entry before it, has number {found}: the chain is re-ordered or torn"
    )]
    Order { cid: Cid, sequence: u64, previous: Cid, found: u64 },
    #[error("{cid} is not a BLAKE3 dag-cbor CID")]
    Address { cid: Cid },
    #[error(transparent)]
    Secret(#[from] KeyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ChainError {
    /// Is an entry merely not in the store?
    pub fn is_missing(&self) -> bool {
        matches!(self, ChainError::Store(StoreError::Missing { .. }))
    }
}

/// May `previous` stand before `next`, which names it?
pub fn follows(cid: &Cid, next: &Manifest, previous: &Manifest) -> Result<(), ChainError> {
    let before = next.previous.unwrap_or_default();
    if previous.key != next.key {
        let (expected, found) = (next.key, previous.key);
        return Err(ChainError::Key { cid: *cid, previous: before, expected, found });
    }
    if previous.sequence.checked_add(1) != Some(next.sequence) {
        let (sequence, found) = (next.sequence, previous.sequence);
        return Err(ChainError::Order { cid: *cid, sequence, previous: before, found });
    }
    Ok(())
}

fn label(manifest: &Manifest) -> String {
    format!("manifest {} {}", manifest.key, manifest.sequence)
}

/// The newest entry of a key's chain in this store.
pub fn head(store: &Store, key: &PublicKey) -> Result<Option<Cid>, ChainError> {
    let start = format!("manifest {key} ");
    let place = |label: &str| label.strip_prefix(&start)?.parse::<u64>().ok();
    let entries = store.pins()?.into_iter().filter_map(|pin| Some((place(&pin.label)?, pin.digest)));
    Ok(entries.max().map(|(_, digest)| car::cid_of(car::DAG_CBOR, &digest)))
}

/// Sign an entry as the next of the key's chain, and keep it. Processes that do so at once take turns.
pub fn append(store: &Store, key: &SecretKey, draft: Manifest) -> Result<(Cid, Manifest), ChainError> {
    let public = key.public();
    let _turn = store.lease(&Digest::of(format!("pipe/chain {public}").as_bytes()))?;
    let link = match head(store, &public)? {
        None => Link { previous: None, sequence: 0 },
        Some(head) => Link { previous: Some(head), sequence: get(store, &head)?.sequence.saturating_add(1) },
    };
    let manifest = draft.signed(key, link);
    keep(store, &manifest)?;
    Ok((manifest.cid(), manifest))
}

/// Keep a manifest whose signature was checked; it stays through every gc.
pub fn keep(store: &Store, manifest: &Manifest) -> Result<(), StoreError> {
    let digest = store.put(&manifest.to_bytes())?;
    store.pin(&digest, &label(manifest))
}

/// A manifest of the store, checked.
pub fn get(store: &Store, cid: &Cid) -> Result<Manifest, ChainError> {
    let digest = car::digest_of(cid).filter(|_| cid.codec() == car::DAG_CBOR);
    let object = store.get(&digest.ok_or(ChainError::Address { cid: *cid })?)?;
    Manifest::from_bytes(&object).map_err(|source| ChainError::Manifest { cid: *cid, source })
}

/// A chain from an entry back, newest first, each checked against the one after it. Ends with the first entry, or with
/// one error: `StoreError::Missing` where the store holds no more of it.
pub struct Walk<'a> {
    store: &'a Store,
    next: Option<Cid>,
    after: Option<(Cid, Manifest)>,
}

pub fn walk(store: &Store, from: Cid) -> Walk<'_> {
    Walk { store, next: Some(from), after: None }
}

impl Iterator for Walk<'_> {
    type Item = Result<(Cid, Manifest), ChainError>;

    fn next(&mut self) -> Option<Self::Item> {
        let cid = self.next.take()?;
        let entry = get(self.store, &cid).and_then(|manifest| {
            if let Some((after, entry)) = &self.after {
                follows(after, entry, &manifest)?;
            }
            Ok(manifest)
        });
        Some(entry.map(|manifest| {
            self.next = manifest.previous;
            self.after = Some((cid, manifest.clone()));
            (cid, manifest)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::Claim;
    use crate::run::Facts;

    fn draft() -> Manifest {
        Manifest::draft(Claim::Published, car::cid_dag_cbor(&[0xa0]), Facts::default(), 7)
    }

    #[test]
    fn entries_follow_one_another_and_survive_gc() {
        let (store, key) = (Store::memory(), SecretKey::random().unwrap());
        let cids: Vec<Cid> = (0..3).map(|_| append(&store, &key, draft()).unwrap().0).collect();
        store.gc(&Default::default()).unwrap();
        assert_eq!(head(&store, &key.public()).unwrap(), Some(cids[2]));
        let walked: Vec<_> = walk(&store, cids[2]).map(Result::unwrap).collect();
        assert_eq!(walked.iter().map(|(cid, _)| *cid).collect::<Vec<_>>(), [cids[2], cids[1], cids[0]]);
        assert_eq!(walked.iter().map(|(_, m)| m.sequence).collect::<Vec<_>>(), [2, 1, 0]);
        // Another key has a chain of its own.
        let other = SecretKey::random().unwrap();
        assert_eq!(append(&store, &other, draft()).unwrap().1.sequence, 0);
    }

    #[test]
    fn a_changed_manifest_is_refused_whatever_the_change() {
        let key = SecretKey::random().unwrap();
        let honest = draft().signed(&key, Link { previous: None, sequence: 0 });
        let bytes = honest.to_bytes();
        assert_eq!(Manifest::from_bytes(&bytes).unwrap(), honest);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            assert!(Manifest::from_bytes(&bad).is_err(), "byte {at}");
        }
        let mut forged = honest.clone();
        forged.key = SecretKey::random().unwrap().public();
        assert!(matches!(Manifest::from_bytes(&forged.to_bytes()), Err(ManifestError::Signature { .. })));
        let raw = Manifest { bundle: car::cid_raw(&Digest::of(b"x")), ..draft() };
        let raw = raw.signed(&key, Link { previous: None, sequence: 0 });
        assert!(matches!(Manifest::from_bytes(&raw.to_bytes()), Err(ManifestError::Bundle { .. })));
        let lone = draft().signed(&key, Link { previous: None, sequence: 4 });
        assert!(matches!(Manifest::from_bytes(&lone.to_bytes()), Err(ManifestError::Place { .. })));
    }

    #[test]
    fn a_chain_out_of_order_or_with_two_keys_is_named() {
        let (store, key) = (Store::memory(), SecretKey::random().unwrap());
        let (first, _) = append(&store, &key, draft()).unwrap();
        let gap = draft().signed(&key, Link { previous: Some(first), sequence: 2 });
        keep(&store, &gap).unwrap();
        assert!(matches!(
            walk(&store, gap.cid()).last(),
            Some(Err(ChainError::Order { sequence: 2, found: 0, .. }))
        ));
        let other = SecretKey::random().unwrap();
        let stolen = draft().signed(&other, Link { previous: Some(first), sequence: 1 });
        keep(&store, &stolen).unwrap();
        assert!(matches!(walk(&store, stolen.cid()).last(), Some(Err(ChainError::Key { .. }))));
    }
}
