//! Bytes too long for one block, cut as UnixFS files are: raw leaves under dag-pb nodes, so that any IPFS tool reads
//! them. One length has one layout, so one content has one root. Knows no store and no bundle.
//!
//! The layout is that of `ipfs add --cid-version 1 --hash blake3 --raw-leaves --chunker size-1048576
//! --max-file-links 1024`: balanced, all leaves but the last of 1 MiB, all nodes but the last of a level full.

use std::io::{self, Write};

use cid::Cid;
use pipe_store::Digest;

use super::car;

/// The longest leaf, and the longest content that is a block by itself. Nodes refuse blocks over 2 MiB.
pub const LEAF_MAX: u64 = 1 << 20;
/// Children of a node.
const WIDTH: u64 = 1024;
/// A node of 1024 children has some 50 KiB.
const NODE_MAX: u64 = 1 << 17;

/// A node's child: its address, the bytes of the file below it, the bytes of all blocks below it.
#[derive(Clone, Copy)]
struct Child {
    cid: Cid,
    content: u64,
    blocks: u64,
}

/// Gives a verified block, at most as long as it is told; None if there is none.
pub type Get<'a, B, E> = dyn FnMut(&Cid, u64) -> Result<Option<B>, E> + 'a;

/// The address of a content, with the blocks of its nodes, children before parents; none for a content that is one
/// block. Leaves are slices of the content: [`leaves`].
#[derive(Clone, Debug)]
pub struct Tree {
    pub root: Cid,
    pub nodes: Vec<(Cid, Vec<u8>)>,
}

/// What a DAG under a content's address has wrong.
#[derive(Debug, thiserror::Error)]
pub enum UnixfsError<E: std::error::Error + 'static> {
    #[error("block {cid} is missing")]
    Missing { cid: Cid },
    #[error("block {cid} has {found} bytes where {expected} belong")]
    Leaf { cid: Cid, found: u64, expected: u64 },
    #[error("block {cid} is not the node that a file of this length has there: {why}")]
    Node { cid: Cid, why: &'static str },
    #[error(transparent)]
    Source(E),
    #[error("could not write: {0}")]
    Write(io::Error),
}

/// Lay out a content.
pub fn tree(content: &[u8]) -> Tree {
    use rayon::prelude::*;
    let digests: Vec<Digest> = content.par_chunks(LEAF_MAX as usize).map(Digest::of).collect();
    let child = |(digest, leaf): (&Digest, &[u8])| {
        let bytes = leaf.len() as u64;
        Child { cid: car::cid_raw(digest), content: bytes, blocks: bytes }
    };
    let mut level: Vec<Child> = digests.iter().zip(content.chunks(LEAF_MAX as usize)).map(child).collect();
    let mut nodes = Vec::new();
    while level.len() > 1 {
        let next = level.chunks(WIDTH as usize).map(|children| {
            let bytes = encode(children);
            let cid = car::cid_of(car::DAG_PB, &Digest::of(&bytes));
            let content = children.iter().map(|c| c.content).sum();
            let blocks = bytes.len() as u64 + children.iter().map(|c| c.blocks).sum::<u64>();
            nodes.push((cid, bytes));
            Child { cid, content, blocks }
        });
        level = next.collect();
    }
    let root = level.first().map_or_else(|| car::cid_raw(&Digest::of(&[])), |root| root.cid);
    Tree { root, nodes }
}

/// The leaves of a content, in order.
pub fn leaves(content: &[u8]) -> impl Iterator<Item = (Cid, &[u8])> {
    let some = content.chunks(LEAF_MAX as usize).map(|leaf| (car::cid_raw(&Digest::of(leaf)), leaf));
    let none = content.is_empty().then(|| (car::cid_raw(&Digest::of(&[])), content));
    some.chain(none)
}

/// Write the content of `length` bytes that has this address. Any other layout than ours is refused, so a DAG that is
/// too deep, too wide, or repeats itself ends where it differs.
pub fn assemble<B: AsRef<[u8]>, E: std::error::Error + 'static>(
    root: &Cid,
    length: u64,
    get: &mut Get<'_, B, E>,
    out: &mut dyn Write,
) -> Result<(), UnixfsError<E>> {
    walk(root, length, get, out).map(|_| ())
}

/// Returns the bytes of all blocks below.
fn walk<B: AsRef<[u8]>, E: std::error::Error + 'static>(
    cid: &Cid,
    length: u64,
    get: &mut Get<'_, B, E>,
    out: &mut dyn Write,
) -> Result<u64, UnixfsError<E>> {
    let leaf = length <= LEAF_MAX;
    if cid.codec() != if leaf { car::RAW } else { car::DAG_PB } {
        return Err(UnixfsError::Node { cid: *cid, why: "it has another codec" });
    }
    let limit = if leaf { LEAF_MAX } else { NODE_MAX };
    let block = get(cid, limit).map_err(UnixfsError::Source)?.ok_or(UnixfsError::Missing { cid: *cid })?;
    let block = block.as_ref();
    let found = block.len() as u64;
    if leaf {
        if found != length {
            return Err(UnixfsError::Leaf { cid: *cid, found, expected: length });
        }
        out.write_all(block).map_err(UnixfsError::Write)?;
        return Ok(found);
    }
    let links = links(block).ok_or(UnixfsError::Node { cid: *cid, why: "it is not dag-pb" })?;
    // What one child holds: the largest full tree that is shorter than the whole.
    let mut full = LEAF_MAX;
    while full.saturating_mul(WIDTH) < length {
        full *= WIDTH;
    }
    if links.len() as u64 != length.div_ceil(full) {
        return Err(UnixfsError::Node { cid: *cid, why: "it has another number of children" });
    }
    let mut children = Vec::with_capacity(links.len());
    for (i, cid) in links.into_iter().enumerate() {
        let content = full.min(length - full * i as u64);
        // A last child with few leaves has the depth of its siblings: levels are filled from below.
        let blocks = descend(&cid, content, full, get, out)?;
        children.push(Child { cid, content, blocks });
    }
    if encode(&children) != block {
        return Err(UnixfsError::Node { cid: *cid, why: "it states other sizes" });
    }
    Ok(found + children.iter().map(|c| c.blocks).sum::<u64>())
}

/// A child that stands where a full one holds `full` bytes: a last child may have one leaf and yet be a node.
fn descend<B: AsRef<[u8]>, E: std::error::Error + 'static>(
    cid: &Cid,
    content: u64,
    full: u64,
    get: &mut Get<'_, B, E>,
    out: &mut dyn Write,
) -> Result<u64, UnixfsError<E>> {
    if full == LEAF_MAX || content > full / WIDTH {
        return walk(cid, content, get, out);
    }
    // One child only: the tree below is as high, but not as long.
    let block = get(cid, NODE_MAX).map_err(UnixfsError::Source)?.ok_or(UnixfsError::Missing { cid: *cid })?;
    let block = block.as_ref();
    let why = "it is not the only child's parent";
    let [only] = links(block).unwrap_or_default()[..] else {
        return Err(UnixfsError::Node { cid: *cid, why });
    };
    let blocks = descend(&only, content, full / WIDTH, get, out)?;
    if encode(&[Child { cid: only, content, blocks }]) != block {
        return Err(UnixfsError::Node { cid: *cid, why: "it states other sizes" });
    }
    Ok(block.len() as u64 + blocks)
}

/// A dag-pb node of a UnixFS file: `PBNode { Links = 2: PBLink { Hash = 1, Name = 2, Tsize = 3 }, Data = 1 }`, links
/// first, and in Data `{ Type = 1: File (2), filesize = 3, blocksizes = 4 }`.
fn encode(children: &[Child]) -> Vec<u8> {
    let mut out = Vec::new();
    for child in children {
        let mut link = Vec::new();
        field_bytes(&mut link, 1, &child.cid.to_bytes());
        field_bytes(&mut link, 2, b"");
        field_number(&mut link, 3, child.blocks);
        field_bytes(&mut out, 2, &link);
    }
    let mut data = Vec::new();
    field_number(&mut data, 1, 2);
    field_number(&mut data, 3, children.iter().map(|c| c.content).sum());
    children.iter().for_each(|child| field_number(&mut data, 4, child.content));
    field_bytes(&mut out, 1, &data);
    out
}

/// The links of a node. What else stands in it is checked by encoding it again.
fn links(block: &[u8]) -> Option<Vec<Cid>> {
    let (mut rest, mut links) = (block, Vec::new());
    while let Some((0x12, after)) = rest.split_first() {
        let (length, after) = varint(after)?;
        let (link, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
        let (0x0a, hash) = link.split_first().map(|(tag, hash)| (*tag, hash))? else { return None };
        let (length, hash) = varint(hash)?;
        links.push(Cid::read_bytes(hash.get(..usize::try_from(length).ok()?)?).ok()?);
        rest = after;
    }
    Some(links)
}

fn field_number(out: &mut Vec<u8>, number: u8, value: u64) {
    out.push(number << 3);
    put_varint(out, value);
}

fn field_bytes(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(9).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use super::*;

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i / 251 + i * 7) as u8).collect()
    }

    fn blocks(content: &[u8]) -> (Cid, HashMap<Cid, Vec<u8>>) {
        let tree = tree(content);
        let leaves = leaves(content).map(|(cid, leaf)| (cid, leaf.to_vec()));
        (tree.root, tree.nodes.into_iter().chain(leaves).collect())
    }

    fn read(
        root: &Cid,
        length: u64,
        blocks: &HashMap<Cid, Vec<u8>>,
    ) -> Result<Vec<u8>, UnixfsError<Infallible>> {
        let mut out = Vec::new();
        assemble(root, length, &mut |cid, _| Ok(blocks.get(cid).cloned()), &mut out).map(|()| out)
    }

    #[test]
    fn contents_come_back_and_small_ones_are_one_raw_block() {
        for length in [0, 1, 1 << 20, (1 << 20) + 1, 3 << 20, (3 << 20) + 5] {
            let content = content(length);
            let (root, blocks) = blocks(&content);
            assert_eq!(root.codec() == car::RAW, length <= 1 << 20);
            assert_eq!(read(&root, length as u64, &blocks).unwrap(), content);
            assert!(blocks.values().all(|block| block.len() as u64 <= LEAF_MAX));
        }
        assert_eq!(tree(&content(77)).root, car::cid_raw(&Digest::of(&content(77))));
    }

    /// Over 1024 leaves there are two levels, and the last node of the lower one may have a single leaf.
    #[test]
    fn two_levels_come_back() {
        let content = vec![0; (1024 << 20) + 3];
        let (root, blocks) = blocks(&content);
        // All leaves but the last are one block.
        assert_eq!(blocks.len(), 2 + 2 + 1);
        struct Count(u64);
        impl Write for Count {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 += bytes.len() as u64;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut count = Count(0);
        let mut get = |cid: &Cid, _| Ok::<_, Infallible>(blocks.get(cid).cloned());
        assemble(&root, content.len() as u64, &mut get, &mut count).unwrap();
        assert_eq!(count.0, content.len() as u64);
    }

    #[test]
    fn other_layouts_are_refused() {
        let content = content(3 << 20);
        let length = content.len() as u64;
        let (root, mut blocks) = blocks(&content);
        assert!(matches!(read(&root, length - 1, &blocks), Err(UnixfsError::Leaf { .. })));
        assert!(matches!(read(&root, 1 << 20, &blocks), Err(UnixfsError::Node { .. })));
        assert!(matches!(read(&root, 9 << 30, &blocks), Err(UnixfsError::Node { .. })));
        // A node that holds its own kind for ever, and one that lies about sizes.
        let mut put = |children: &[Child]| {
            let bytes = encode(children);
            let cid = car::cid_of(car::DAG_PB, &Digest::of(&bytes));
            blocks.insert(cid, bytes);
            cid
        };
        let again = [Child { cid: root, content: 1 << 20, blocks: 5 }; 3];
        let deep = put(&again);
        let leaf = car::cid_raw(&Digest::of(&content[..1 << 20]));
        let lying = put(&[Child { cid: leaf, content: 1 << 20, blocks: 5 }; 3]);
        assert!(matches!(read(&deep, length, &blocks), Err(UnixfsError::Node { .. })));
        assert!(matches!(read(&lying, length, &blocks), Err(UnixfsError::Node { .. })));
        blocks.remove(&leaf);
        assert!(matches!(read(&root, length, &blocks), Err(UnixfsError::Missing { cid }) if cid == leaf));
    }
}
