//! Making traces while the engine computes: digests as the blocks are done, on the engine's threads.

use std::io;
use std::sync::{Mutex, PoisonError};

use pipe_kernels::{BlockOutput, Tap};
use pipe_store::{Digest, StoreError};

use super::spool::Spool;
use super::{Layout, Written, digest};

/// Bytes of kept rows that wait in memory during one call of the engine.
const KEPT_MAX: usize = 64 << 20;

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
    /// Digests, and bytes of kept rows.
    got: Mutex<(Vec<Digest>, Vec<u8>)>,
    /// Where in a record the rows of a slot stand, if they are kept.
    offsets: Vec<Option<usize>>,
    record: usize,
}

impl Collector {
    /// For so many prompts. Levels that keep rows need a spool.
    pub fn new(layout: Layout, prompts: usize, spool: Option<Spool>) -> Self {
        Collector { layout, prompts: vec![Growing::default(); prompts], spool }
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
        let rows = Rows::new(&self.layout, parts);
        let see = |output: BlockOutput<'_>| rows.see(&output);
        forward(Tap { wants: &|block| self.layout.slot(block).is_some(), see: &see })?;
        let (digests, kept) = rows.got.into_inner().unwrap_or_else(PoisonError::into_inner);
        let record = match &mut self.spool {
            Some(spool) => spool.append(&kept)?,
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
    fn new(layout: &'a Layout, parts: &[Part]) -> Self {
        let mut rows = 0;
        let parts = parts.iter().map(|part| {
            let first = rows;
            rows += part.count;
            (first, part.start)
        });
        let parts = parts.collect();
        let record = layout.kept_bytes();
        let mut offsets = vec![None; layout.blocks.len()];
        let mut at = 0;
        for (slot, _, width) in layout.kept() {
            offsets[slot] = Some(at);
            at += width * 4;
        }
        let got = (vec![Digest([0; 32]); rows * layout.blocks.len()], vec![0; rows * record]);
        Rows { layout, parts, got: Mutex::new(got), offsets, record }
    }

    fn see(&self, output: &BlockOutput<'_>) {
        let Some(slot) = self.layout.slot(output.block) else { return };
        let bytes: Vec<&[u8]> = output.bytes().map(|(_, bytes)| bytes).collect();
        let mut digests = Vec::with_capacity(bytes.len());
        digest::rows(&bytes, &mut digests);
        let mut got = self.got.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, kept) = &mut *got;
        for ((place, bytes), digest) in output.bytes().zip(digests) {
            let (first, start) = self.parts[place.sequence];
            let row = first + place.position - start;
            all[row * self.layout.blocks.len() + slot] = digest;
            if let Some(offset) = self.offsets[slot] {
                let at = row * self.record + offset;
                kept[at..at + bytes.len()].copy_from_slice(bytes);
            }
        }
    }
}
