//! A packed matrix: panels of 16 outputs in one of six formats, and what each weight of it is in f32.
//! Knows no file and no model.

use half::{bf16, f16};

use crate::cpu::linear::PANEL;

/// Weights that share a scale; elements of k.
pub const BLOCK: usize = 32;
/// Bytes of a panel's block in 8 bits.
pub(crate) const WIDE: usize = BLOCK * PANEL;
/// Bytes of a panel's block in 4 bits.
pub(crate) const NARROW: usize = WIDE / 2;
/// Bytes of a panel's scales, or minimums, of one block: 16 of f16.
pub(crate) const SCALES: usize = PANEL * 2;

/// How a packed matrix keeps its weights. K is the number of inputs, B that of blocks, ⌈K/32⌉.
///
/// A panel of floats is `[K][16]`. A panel of blocks has the integers of all blocks first, then `[B][16]` scales
/// in f16, then, in [`Format::Q4Min`], `[B][16]` minimums in f16, and zeros up to a multiple of 64 bytes.
/// Inputs beyond K are zero integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    F32,
    F16,
    Bf16,
    /// `w = d·q`; a block is `[8][16][4]` bytes `q + 128`: 4 consecutive inputs of each output side by side.
    Q8,
    /// `w = d·q`; a block is `[4][16][4]` bytes, whose low half holds `q + 8` of inputs 0 to 15 of the block as
    /// above, and the high half inputs 16 to 31.
    Q4,
    /// `w = d·q + m`, rounded once after the exact product; as above, with `q` itself, from 0 to 15.
    Q4Min,
}

impl Format {
    pub(crate) const ALL: [Format; 6] =
        [Format::F32, Format::F16, Format::Bf16, Format::Q8, Format::Q4, Format::Q4Min];

    /// The name a packed file holds.
    pub fn name(self) -> &'static str {
        match self {
            Format::F32 => "f32",
            Format::F16 => "f16",
            Format::Bf16 => "bf16",
            Format::Q8 => "q8",
            Format::Q4 => "q4",
            Format::Q4Min => "q4m",
        }
    }

    pub fn is_float(self) -> bool {
        matches!(self, Format::F32 | Format::F16 | Format::Bf16)
    }

    /// What is added to an integer weight to store it without a sign.
    pub(crate) fn offset(self) -> i32 {
        match self {
            Format::Q8 => 128,
            Format::Q4 => 8,
            _ => 0,
        }
    }

    /// Bytes of one panel of `k` inputs; a multiple of 64 for blocks, of 32 for 16-bit floats.
    pub(crate) fn panel_bytes(self, k: usize) -> usize {
        let blocks = k.div_ceil(BLOCK);
        match self {
            Format::F32 => k * PANEL * 4,
            Format::F16 | Format::Bf16 => k * PANEL * 2,
            Format::Q8 => (blocks * (WIDE + SCALES)).next_multiple_of(64),
            Format::Q4 => (blocks * (NARROW + SCALES)).next_multiple_of(64),
            Format::Q4Min => (blocks * (NARROW + 2 * SCALES)).next_multiple_of(64),
        }
    }
}

/// Where in a panel's block the integer of input `i` and output `lane` lies, in 8 bits: the byte.
pub(crate) fn wide_at(i: usize, lane: usize) -> usize {
    i / 4 * 4 * PANEL + lane * 4 + i % 4
}

/// The same in 4 bits: the byte, and whether its high half.
pub(crate) fn narrow_at(i: usize, lane: usize) -> (usize, bool) {
    (wide_at(i % (BLOCK / 2), lane), i >= BLOCK / 2)
}

/// A matrix in panels of 16 outputs, borrowed from a packed file.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    pub format: Format,
    /// Inputs.
    pub k: usize,
    /// Whole panels, each on a boundary of 32 bytes.
    pub data: &'a [u8],
}

impl<'a> Matrix<'a> {
    pub(crate) const EMPTY: Matrix<'static> = Matrix { format: Format::F32, k: 1, data: &[] };

    pub fn panels(&self) -> usize {
        self.data.len() / self.panel_bytes()
    }

    pub fn panel_bytes(&self) -> usize {
        self.format.panel_bytes(self.k)
    }

    /// Blocks along k.
    pub(crate) fn blocks(&self) -> usize {
        self.k.div_ceil(BLOCK)
    }

    pub(crate) fn panel(&self, p: usize) -> &'a [u8] {
        let bytes = self.panel_bytes();
        &self.data[p * bytes..(p + 1) * bytes]
    }

    /// The integer, without offset, of output `n` for input `k`; of a format of blocks.
    pub(crate) fn integer(&self, n: usize, k: usize) -> i32 {
        let (panel, block, i, lane) = (self.panel(n / PANEL), k / BLOCK, k % BLOCK, n % PANEL);
        let stored = match self.format {
            Format::Q8 => panel[block * WIDE + wide_at(i, lane)],
            _ => {
                let (at, high) = narrow_at(i, lane);
                let byte = panel[block * NARROW + at];
                if high { byte >> 4 } else { byte & 15 }
            }
        };
        i32::from(stored) - self.format.offset()
    }

    /// Scale and minimum of output `n` in a block; of a format of blocks.
    pub(crate) fn scale(&self, n: usize, block: usize) -> (f32, f32) {
        let panel = self.panel(n / PANEL);
        let integers = self.blocks() * if self.format == Format::Q8 { WIDE } else { NARROW };
        let half = |at: usize| {
            let at = at + block * SCALES + n % PANEL * 2;
            f16::from_le_bytes([panel[at], panel[at + 1]]).to_f32()
        };
        let minimum =
            if self.format == Format::Q4Min { half(integers + self.blocks() * SCALES) } else { 0.0 };
        (half(integers), minimum)
    }

    /// The weight of output `n` (counting padding) for input `k`, in f32, exactly or, in a format with a minimum,
    /// rounded once.
    pub fn at(&self, n: usize, k: usize) -> f32 {
        let word = |bytes: usize| &self.panel(n / PANEL)[(k * PANEL + n % PANEL) * bytes..][..bytes];
        match self.format {
            Format::F32 => word(4).try_into().map_or(f32::NAN, f32::from_le_bytes),
            Format::F16 => word(2).try_into().map_or(f32::NAN, |b| f16::from_le_bytes(b).to_f32()),
            Format::Bf16 => word(2).try_into().map_or(f32::NAN, |b| bf16::from_le_bytes(b).to_f32()),
            Format::Q8 | Format::Q4 => self.scale(n, k / BLOCK).0 * self.integer(n, k) as f32,
            Format::Q4Min => {
                let (d, m) = self.scale(n, k / BLOCK);
                d * self.integer(n, k) as f32 + m
            }
        }
    }

    /// The weights of output `n` (counting padding), `k` of them into `out`: what [`Matrix::at`] gives, faster.
    pub fn row(&self, n: usize, out: &mut [f32]) {
        if self.format.is_float() {
            for (k, w) in out.iter_mut().enumerate() {
                *w = self.at(n, k);
            }
            return;
        }
        for (b, out) in out.chunks_mut(BLOCK).enumerate() {
            let (d, m) = self.scale(n, b);
            for (i, w) in out.iter_mut().enumerate() {
                let product = d * self.integer(n, b * BLOCK + i) as f32;
                *w = if self.format == Format::Q4Min { product + m } else { product };
            }
        }
    }
}
