//! The head of a safetensors file that is written as a stream: metadata first, tensors in the order of their bytes.

use serde_json::Value;

/// The data begins at a multiple of this.
const ALIGN: usize = 64;

/// A head that grows.
pub(crate) struct Header {
    json: String,
    /// Bytes of the tensors so far.
    at: usize,
}

impl Header {
    pub fn new(metadata: &[(&str, &str)]) -> Self {
        let field = |(key, value): &(&str, &str)| format!("{}:{}", quote(key), quote(value));
        let fields: Vec<String> = metadata.iter().map(field).collect();
        Header { json: format!("{{\"__metadata__\":{{{}}}", fields.join(",")), at: 0 }
    }

    /// The next tensor, of elements of `size` bytes.
    pub fn tensor(&mut self, name: &str, dtype: &str, shape: &[usize], size: usize) {
        let (start, end) = (self.at, self.at + shape.iter().product::<usize>() * size);
        let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
        self.json += &format!(
            ",{}:{{\"dtype\":\"{dtype}\",\"shape\":[{}],\"data_offsets\":[{start},{end}]}}",
            quote(name),
            shape.join(",")
        );
        self.at = end;
    }

    /// Length word, JSON, spaces up to a multiple of 64.
    pub fn finish(mut self) -> Vec<u8> {
        self.json.push('}');
        let padded = (8 + self.json.len()).next_multiple_of(ALIGN) - 8;
        self.json.extend(std::iter::repeat_n(' ', padded - self.json.len()));
        let mut bytes = (padded as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(self.json.as_bytes());
        bytes
    }
}

fn quote(text: &str) -> String {
    Value::from(text).to_string()
}
