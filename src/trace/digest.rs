//! The digests of a trace, all plain BLAKE3. They depend on a sequence's tokens and the model, on nothing else:
//! not on how a prompt was cut, batched or threaded, nor on prefill or decode.

use pipe_store::Digest;

use super::many;

/// Of a block's output at one position: its floats, little-endian. Appends one for each row.
pub fn rows(rows: &[&[u8]], out: &mut Vec<Digest>) {
    many::hash(rows, out);
}

/// Of a position: the token there as u32 little-endian, then the digests of the rows of every covered block, in
/// the schedule's order. A token that was generated last, and so never went through the model, has no rows.
pub fn position(token: u32, rows: &[Digest]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&token.to_le_bytes());
    rows.iter().for_each(|digest| {
        hasher.update(&digest.0);
    });
    Digest(*hasher.finalize().as_bytes())
}

/// Of a transcript, prompt and answer: the digests of its positions, in order. `digests` holds those of the
/// rows, `blocks` for each position that went through the model.
pub fn root(tokens: impl IntoIterator<Item = u32>, digests: &[Digest], blocks: usize) -> Digest {
    let mut hasher = blake3::Hasher::new();
    let mut rows = digests.chunks_exact(blocks.max(1));
    for token in tokens {
        hasher.update(&position(token, rows.next().unwrap_or_default()).0);
    }
    Digest(*hasher.finalize().as_bytes())
}
