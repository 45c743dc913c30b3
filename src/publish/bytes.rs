//! Fixed numbers of bytes as serde data: bytes in DAG-CBOR, hex digits in JSON.

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

pub fn serialize<const N: usize, S: Serializer>(bytes: &[u8; N], s: S) -> Result<S::Ok, S::Error> {
    match s.is_human_readable() {
        true => s.serialize_str(&pipe_store::hex(bytes)),
        false => s.serialize_bytes(bytes),
    }
}

pub fn deserialize<'de, const N: usize, D: Deserializer<'de>>(d: D) -> Result<[u8; N], D::Error> {
    match d.is_human_readable() {
        true => d.deserialize_str(Fixed::<N>),
        false => d.deserialize_bytes(Fixed::<N>),
    }
}

struct Fixed<const N: usize>;

impl<const N: usize> Visitor<'_> for Fixed<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{N} bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<[u8; N], E> {
        bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<[u8; N], E> {
        unhex(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

/// 2·N hex digits.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| (pair[0] * 16 + pair.get(1).unwrap_or(&0)) as u8).collect();
    (digits.len() == 2 * N).then(|| bytes.try_into().ok())?
}
