//! JSON artifacts: written compactly with a final newline, read with the artifact's name in the error.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::OpError;

pub const MEDIA_TYPE: &str = "application/json";

pub fn write<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).expect("BUG: an artifact is plain data");
    bytes.push(b'\n');
    bytes
}

pub fn read<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, OpError> {
    serde_json::from_slice(bytes).map_err(|e| OpError::input(what, e))
}
