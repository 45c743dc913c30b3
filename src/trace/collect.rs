//! Making traces while the engine computes: digests as the blocks are done, on the engine's threads.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pipe_kernels::{Block, BlockOutput, Half, Place, Tap};
use pipe_store::{Digest, StoreError};

use super::spool::Spool;
use super::{Layout, Written, digest};

/// Bytes of kept rows that wait in memory during one call of the engine.
const KEPT_MAX: usize = 64 << 20;
/// In a pass of so few rows, those of several blocks are hashed together: BLAKE3 needs many short rows to be fast.
const FEW: usize = 7;
/// From so many bytes on they are hashed at the next good moment: enough of them, and still near.
const WAITING_ENOUGH: usize = 320 << 10;

/// One slice of a batch: tokens `start..start + count` of a prompt.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub prompt: usize,
    pub start: usize,
    pub count: usize,
}

/// The traces of some prompts as they grow.
pub struct Collector {
    layout: Layout,
    prompts: Vec<Growing>,
    spool: Option<Spool>,
    /// Memory of the passes, one after the other.
    waiting: Vec<Waiting>,
}

/// What there is of one prompt so far, position by position.
#[derive(Clone, Default)]
struct Growing {
    digests: Vec<Digest>,
    /// Its records in the spool.
    records: Vec<usize>,
}

/// What one call of the engine gives, row by row in the order of the parts.
struct Rows<'a> {
    layout: &'a Layout,
    /// For each part its first row, and the position there.
    parts: Vec<(usize, usize)>,
    /// For each row one for each covered block.
    digests: Mutex<Vec<Digest>>,
    rows: Vec<Mutex<Row<'a>>>,
    /// Where in a record the rows of a slot stand, if they are kept.
    offsets: Vec<Option<usize>>,
    few: bool,
}

/// One row of a pass. Whichever thread is shown it is shown it of all blocks, in the schedule's order.
struct Row<'a> {
    /// Its record.
    kept: &'a mut [u8],
    waiting: &'a mut Waiting,
}

/// What blocks gave in a row, to be hashed together: the slots, and copies of those outputs that are not kept, one
/// after the other.
#[derive(Clone, Default)]
struct Waiting {
    slots: Vec<usize>,
    bytes: Vec<u8>,
}

impl Collector {
    /// For so many prompts. Levels that keep rows need a spool.
    pub fn new(layout: Layout, prompts: usize, spool: Option<Spool>) -> Self {
        let prompts = vec![Growing::default(); prompts];
        Collector { layout, prompts, spool, waiting: Vec::new() }
    }

    /// Most tokens that one call of the engine should be given.
    pub fn most_rows(&self) -> usize {
        KEPT_MAX.checked_div(self.layout.kept_bytes()).map_or(usize::MAX, |most| most.max(1))
    }

    /// Runs `forward`, which hands the tap to the engine with a batch of these parts, and takes what it saw.
    pub fn observe<E: From<StoreError>>(
        &mut self,
        parts: &[Part],
        forward: impl FnOnce(Tap<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        // Rows are written where they will stay.
        let bytes = parts.iter().map(|part| part.count).sum::<usize>() * self.layout.kept_bytes();
        let kept = self.spool.as_mut().map(|spool| spool.room(bytes)).unwrap_or_default();
        let rows = Rows::new(&self.layout, parts, kept, &mut self.waiting);
        let see = |output: BlockOutput<'_>| rows.see(&output);
        forward(Tap { wants: &|block| self.layout.slot(block).is_some(), see: &see })?;
        let digests = rows.finish();
        let record = match &mut self.spool {
            Some(spool) => spool.keep(bytes)?,
            None => 0,
        };
        let blocks = self.layout.blocks.len();
        let mut row = 0;
        for part in parts {
            let growing = &mut self.prompts[part.prompt];
            growing.digests.extend_from_slice(&digests[row * blocks..(row + part.count) * blocks]);
            if self.spool.is_some() {
                growing.records.extend(record + row..record + row + part.count);
            }
            row += part.count;
        }
        Ok(())
    }

    /// Bytes of the digests of `count` positions.
    pub fn digest_bytes(&self, count: usize) -> usize {
        count * self.layout.blocks.len() * 32
    }

    /// The digests of positions `start..start + count` of a prompt, which are there already.
    pub fn digests(&self, prompt: usize, start: usize, count: usize) -> impl Iterator<Item = &Digest> {
        let blocks = self.layout.blocks.len();
        self.prompts[prompt].digests[start * blocks..(start + count) * blocks].iter()
    }

    /// Takes the digests of a prompt's next positions as they were when the same tokens went through the model
    /// before, instead of observing them.
    pub fn recall(&mut self, prompt: usize, digests: &[u8]) {
        let digests = digests.chunks_exact(32).map(|d| {
            let mut digest = Digest([0; 32]);
            digest.0.copy_from_slice(d);
            digest
        });
        self.prompts[prompt].digests.extend(digests);
    }

    /// The root of a prompt's transcript, whose tokens are all there now.
    pub fn root(&self, prompt: usize, tokens: impl IntoIterator<Item = u32>) -> Digest {
        digest::root(tokens, &self.prompts[prompt].digests, self.layout.blocks.len())
    }

    /// Writes the artifact, given the tokens of each prompt's transcript.
    pub fn write(mut self, out: &mut impl io::Write, spec: &str, tokens: &[Vec<u32>]) -> io::Result<()> {
        let records = self.spool.as_mut().map(Spool::read).transpose()?;
        let prompts: Vec<Written<'_>> = self
            .prompts
            .iter()
            .zip(tokens)
            .map(|(growing, tokens)| Written { tokens, digests: &growing.digests, records: &growing.records })
            .collect();
        super::write(out, spec, &self.layout, &prompts, records.as_ref())
    }
}

impl<'a> Rows<'a> {
    fn new(layout: &'a Layout, parts: &[Part], kept: &'a mut [u8], waiting: &'a mut Vec<Waiting>) -> Self {
        let mut rows = 0;
        let parts = parts.iter().map(|part| {
            let first = rows;
            rows += part.count;
            (first, part.start)
        });
        let parts = parts.collect();
        let mut offsets = vec![None; layout.blocks.len()];
        let mut record = 0;
        for (slot, _, width) in layout.kept() {
            offsets[slot] = Some(record);
            record += width * 4;
        }
        waiting.resize(rows, Waiting::default());
        let mut kept = kept.chunks_exact_mut(record.max(1));
        let row = |waiting: &'a mut Waiting| {
            waiting.clear();
            Mutex::new(Row { kept: kept.next().unwrap_or_default(), waiting })
        };
        Rows {
            layout,
            parts,
            digests: Mutex::new(vec![Digest([0; 32]); rows * layout.blocks.len()]),
            rows: waiting.iter_mut().map(row).collect(),
            offsets,
            few: rows <= FEW,
        }
    }

    fn see(&self, output: &BlockOutput<'_>) {
        let Some(slot) = self.layout.slot(output.block) else { return };
        let offset = self.offsets[slot];
        if self.few || offset.is_some() {
            for (place, bytes) in output.bytes() {
                let row = self.row(place);
                let Row { kept, waiting } = &mut *lock(&self.rows[row]);
                match offset {
                    Some(offset) => kept[offset..offset + bytes.len()].copy_from_slice(bytes),
                    None => waiting.bytes.extend_from_slice(bytes),
                }
                if self.few {
                    waiting.slots.push(slot);
                    if self.hashes_at(slot, waiting.bytes.len()) {
                        self.hash(row, kept, waiting);
                    }
                }
            }
        }
        if !self.few {
            let bytes: Vec<&[u8]> = output.bytes().map(|(_, bytes)| bytes).collect();
            let mut found = Vec::with_capacity(bytes.len());
            digest::rows(&bytes, &mut found);
            let mut digests = lock(&self.digests);
            for ((place, _), digest) in output.rows().zip(found) {
                digests[self.row(place) * self.layout.blocks.len() + slot] = digest;
            }
        }
    }

    /// Is this block a good moment? The thread that hashes comes late to the block after it, of which the others do
    /// its share meanwhile. The longest of a layer is gate_up; after the last layer comes lm_head.
    fn hashes_at(&self, slot: usize, waiting: usize) -> bool {
        let before_gate_up = matches!(self.layout.blocks[slot], Block::RmsNorm { half: Half::Ffn, .. });
        slot + 1 == self.layout.blocks.len() || (before_gate_up && waiting >= WAITING_ENOUGH)
    }

    fn row(&self, place: Place) -> usize {
        let (first, start) = self.parts[place.sequence];
        first + place.position - start
    }

    /// Hashes what waits of a row.
    fn hash(&self, row: usize, kept: &[u8], waiting: &mut Waiting) {
        let mut copies = waiting.bytes.as_slice();
        let piece = |&slot: &usize| {
            let bytes = self.layout.width(slot) * 4;
            match self.offsets[slot] {
                Some(offset) => &kept[offset..offset + bytes],
                None => {
                    let (piece, rest) = copies.split_at(bytes);
                    copies = rest;
                    piece
                }
            }
        };
        let pieces: Vec<&[u8]> = waiting.slots.iter().map(piece).collect();
        let mut found = Vec::with_capacity(pieces.len());
        digest::rows(&pieces, &mut found);
        let mut digests = lock(&self.digests);
        for (&slot, digest) in waiting.slots.iter().zip(found) {
            digests[row * self.layout.blocks.len() + slot] = digest;
        }
        drop(digests);
        waiting.clear();
    }

    /// The digests, when all has been seen.
    fn finish(self) -> Vec<Digest> {
        self.digests.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn clear(&mut self) {
        self.slots.clear();
        self.bytes.clear();
    }
}

/// A thread that panicked has ended the pass.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
