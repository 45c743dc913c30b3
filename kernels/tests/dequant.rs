//! Every stored type against what the Python code of ggml's authors makes of the same bytes (`dequant/make.py`),
//! bit for bit.

use pipe_kernels::dequant::dequantise;
use pipe_kernels::weights::TensorType;

const BLOCKS: usize = 4096;

/// A type of the vectors and where its f16 numbers stand.
fn known(name: &str) -> (TensorType, &'static [usize]) {
    match name {
        "F16" => (TensorType::F16, &[0]),
        "BF16" => (TensorType::BF16, &[]),
        "Q8_0" => (TensorType::Q8_0, &[0]),
        "Q4_0" => (TensorType::Q4_0, &[0]),
        "Q4_1" => (TensorType::Q4_1, &[0, 2]),
        "Q5_0" => (TensorType::Q5_0, &[0]),
        "Q5_1" => (TensorType::Q5_1, &[0, 2]),
        "Q4_K" => (TensorType::Q4_K, &[0, 2]),
        "Q5_K" => (TensorType::Q5_K, &[0, 2]),
        "Q6_K" => (TensorType::Q6_K, &[208]),
        other => panic!("{other} is in vectors.txt but not here"),
    }
}

/// SplitMix64's last steps.
fn mix(z: u64) -> u64 {
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// The blocks that the script makes.
fn blocks(size: usize, halves: &[usize]) -> Vec<u8> {
    let mut data: Vec<u8> = (1..=(BLOCKS * size) as u64).map(|i| mix(i) as u8).collect();
    for block in data.chunks_exact_mut(size) {
        for at in halves {
            if block[at + 1] & 0x7c == 0x7c {
                block[at + 1] ^= 0x40;
            }
        }
    }
    data
}

fn hex(bytes: impl IntoIterator<Item = u8>) -> String {
    bytes.into_iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn weights_are_those_of_ggml() {
    let mut lines = 0;
    for line in include_str!("dequant/vectors.txt").lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [name, block, weights, total] = fields[..] else { panic!("no vector: {line}") };
        let (ty, halves) = known(name);
        let (unit, size) = ty.unit();
        let data = blocks(size, halves);
        assert_eq!(hex(data[..size].iter().copied()), block, "{name}: other blocks than the script's");

        let mut out = vec![f32::NAN; BLOCKS * unit];
        dequantise(ty, &data, &mut out);
        let bits: Vec<u32> = match ty {
            // The script leaves no infinity and no NaN in.
            TensorType::BF16 => out.iter().map(|w| if w.is_finite() { w.to_bits() } else { 0 }).collect(),
            _ => out.iter().map(|w| w.to_bits()).collect(),
        };
        let first: String = bits[..unit].iter().map(|b| format!("{b:08x}")).collect();
        assert_eq!(first, weights, "{name}");
        let sum = |sum: u64, (i, &b): (usize, &u32)| sum.wrapping_add(mix((i as u64) << 32 | u64::from(b)));
        assert_eq!(format!("{:016x}", bits.iter().enumerate().fold(0, sum)), total, "{name}");
        lines += 1;
    }
    assert_eq!(lines, 10);
}
