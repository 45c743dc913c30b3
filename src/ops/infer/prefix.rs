//! What prompts begin with, computed once: keys, values and digests of 64 tokens at a time, shared between the
//! prompts of a step, and through the store between steps, runs and processes.
//!
//! A piece's key is made from the spec, the packed weights and every token up to its end. By the numeric contract
//! nothing else can change it: not the batch it was computed in, the threads or the machine. Knows no sampling.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use pipe_kernels::{KvCache, PIECE};
use pipe_store::{Artifact, Digest, Output, Record, StoreError};

use crate::ops::{OpError, TokenizedPrompt, World};
use crate::probe::Plan;
use crate::recipe::op::{Infer, TraceLevel};
use crate::trace::Collector;

const DOMAIN: &str = "pipe/prefix@1";

/// May a prompt go to the engine now?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Go,
    /// Another prompt in the engine is computing what this one begins with.
    Wait,
}

/// The pieces of a step's prompts.
pub struct Prefixes<'a> {
    world: &'a World<'a>,
    /// For each prompt the keys of its pieces. The last token is always computed: its logits are wanted.
    keys: Vec<Vec<Digest>>,
    /// How many prompts of this step still want a piece.
    wanted: HashMap<Digest, usize>,
    /// Pieces that were computed or read, while somebody wants them.
    ready: HashMap<Digest, Arc<Vec<u8>>>,
    /// Pieces that prompts in the engine are computing.
    computing: HashSet<Digest>,
    /// For each prompt, how many of its pieces have been taken or kept.
    done: Vec<usize>,
}

impl<'a> Prefixes<'a> {
    pub fn new(
        op: &Infer,
        weights: &Digest,
        prompts: &[TokenizedPrompt],
        probes: &Plan,
        world: &'a World<'a>,
    ) -> Self {
        // Where every row is wanted, or every position's logits, every token must go through the model. The last of
        // a prompt always does.
        let useful = op.trace == TraceLevel::Digests && !op.log_likelihood && !probes.whole_prompt();
        let keys_of = |prompt: &TokenizedPrompt| match useful {
            true => keys(op, weights, &prompt.tokens),
            false => vec![],
        };
        let keys: Vec<Vec<Digest>> = prompts.iter().map(keys_of).collect();
        let mut wanted = HashMap::new();
        for key in keys.iter().flatten() {
            *wanted.entry(*key).or_insert(0) += 1;
        }
        let done = vec![0; keys.len()];
        Prefixes { world, keys, wanted, ready: HashMap::new(), computing: HashSet::new(), done }
    }

    /// Fills a prompt's empty cache with what is there, and its digests with it.
    pub fn fill(
        &mut self,
        prompt: usize,
        cache: &mut KvCache,
        collector: &mut Collector,
    ) -> Result<Fate, OpError> {
        let keys = self.keys[prompt].clone();
        let mut found = Vec::new();
        for key in &keys {
            match self.find(key)? {
                Some(piece) => found.push(piece),
                None if self.computing.contains(key) => return Ok(Fate::Wait),
                None => break,
            }
        }
        let digests = collector.digest_bytes(PIECE);
        for piece in &found {
            let Some((values, digests)) = piece.split_at_checked(piece.len().saturating_sub(digests)) else {
                break;
            };
            // A piece of another size is not ours to understand: the tokens are computed again.
            if !cache.append(values)? {
                break;
            }
            collector.recall(prompt, digests);
            self.done[prompt] += 1;
        }
        let done = self.done[prompt];
        for key in &keys[..done] {
            self.served(key);
        }
        self.computing.extend(&keys[done..]);
        Ok(Fate::Go)
    }

    /// Keeps the pieces that a prompt's cache has come to hold.
    pub fn keep(&mut self, prompt: usize, cache: &KvCache, collector: &Collector) -> Result<(), OpError> {
        while let Some(&key) = self.keys[prompt].get(self.done[prompt]) {
            let start = self.done[prompt] * PIECE;
            let Some(mut piece) = cache.piece(start) else { break };
            for digest in collector.digests(prompt, start, PIECE) {
                piece.extend_from_slice(&digest.0);
            }
            self.put(&key, &piece)?;
            self.done[prompt] += 1;
            self.computing.remove(&key);
            if self.served(&key) > 0 {
                self.ready.insert(key, Arc::new(piece));
            }
        }
        Ok(())
    }

    /// One prompt less wants the piece; how many still do.
    fn served(&mut self, key: &Digest) -> usize {
        let left = self.wanted.get_mut(key).map_or(0, |n| {
            *n = n.saturating_sub(1);
            *n
        });
        if left == 0 {
            self.ready.remove(key);
        }
        left
    }

    fn find(&mut self, key: &Digest) -> Result<Option<Arc<Vec<u8>>>, OpError> {
        if let Some(piece) = self.ready.get(key) {
            return Ok(Some(Arc::clone(piece)));
        }
        if self.world.prefixes.is_none() {
            return Ok(None);
        }
        let Some(record) = self.world.store.record(key)? else { return Ok(None) };
        let [output] = record.outputs.as_slice() else { return Ok(None) };
        match self.world.store.get(&output.artifact.digest) {
            Ok(object) => {
                let piece = Arc::new(object.to_vec());
                self.ready.insert(*key, Arc::clone(&piece));
                Ok(Some(piece))
            }
            // Gone or damaged: it is computed again.
            Err(StoreError::Missing { .. } | StoreError::Damaged { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn put(&self, key: &Digest, piece: &[u8]) -> Result<(), OpError> {
        let Some(created_ms) = self.world.prefixes else { return Ok(()) };
        let store = self.world.store;
        if store.is_read_only() {
            return Ok(());
        }
        let digest = store.put(piece)?;
        let media_type = "application/octet-stream".into();
        let artifact = Artifact { digest, length: piece.len() as u64, media_type };
        let record = Record {
            step: String::new(),
            preimage: format!("domain = \"{DOMAIN}\"\n"),
            outputs: vec![Output { name: "piece".into(), artifact }],
            log: None,
            facts: "{}".into(),
            created_ms,
        };
        store.put_record(key, &record)?;
        Ok(())
    }
}

/// The keys of a prompt's pieces: a chain over its tokens that starts from the spec and the weights.
fn keys(op: &Infer, weights: &Digest, tokens: &[u32]) -> Vec<Digest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(DOMAIN.as_bytes());
    hasher.update(&[0]);
    hasher.update(op.spec.id().as_bytes());
    hasher.update(&[0]);
    hasher.update(&weights.0);
    let pieces = tokens.chunks_exact(PIECE).take(tokens.len().saturating_sub(1) / PIECE);
    let key = |piece: &[u32]| {
        for token in piece {
            hasher.update(&token.to_le_bytes());
        }
        Digest(*hasher.finalize().as_bytes())
    };
    pieces.map(key).collect()
}
