//! The names of the stored types, and how many bytes a tensor takes. What the bytes mean is the kernels' business.

use pipe_kernels::weights::TensorType;

/// The name files and messages use.
pub fn name(ty: TensorType) -> &'static str {
    match ty {
        TensorType::F32 => "F32",
        TensorType::F16 => "F16",
        TensorType::BF16 => "BF16",
        TensorType::Q8_0 => "Q8_0",
        TensorType::Q4_0 => "Q4_0",
        TensorType::Q4_1 => "Q4_1",
        TensorType::Q5_0 => "Q5_0",
        TensorType::Q5_1 => "Q5_1",
        TensorType::Q4_K => "Q4_K",
        TensorType::Q5_K => "Q5_K",
        TensorType::Q6_K => "Q6_K",
    }
}

/// May a norm's weights be stored like this? Block types would round them, so no file does.
pub fn is_float(ty: TensorType) -> bool {
    matches!(ty, TensorType::F32 | TensorType::F16 | TensorType::BF16)
}

/// Bytes of `rows × cols` weights; None when a row is no whole number of blocks, or on overflow.
pub fn byte_len(ty: TensorType, rows: u64, cols: u64) -> Option<u64> {
    let (weights, bytes) = ty.unit();
    if !cols.is_multiple_of(weights as u64) {
        return None;
    }
    (cols / weights as u64).checked_mul(bytes as u64)?.checked_mul(rows)
}
