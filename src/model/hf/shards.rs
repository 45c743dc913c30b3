//! safetensors files, one or sharded: headers read once, tensors found by name, bytes borrowed.
//! Knows no model.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::ops::Range;

use pipe_kernels::weights::TensorType;
use safetensors::{Dtype, SafeTensors};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{Result, json, tensor_error};
use crate::model::{Bytes, ModelError, ModelFile};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Longest header; 1,000 tensors take some 100 KB.
const MAX_HEADER: u64 = 64 << 20;

/// Where a tensor lies.
#[derive(Debug)]
struct Place {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Of the whole file.
    data: Range<usize>,
}

/// All safetensors files of a folder.
#[derive(Debug)]
pub struct Shards {
    files: Vec<(String, Bytes)>,
    places: BTreeMap<String, Place>,
}

/// A tensor, borrowed.
pub struct Found<'a> {
    pub file: &'a str,
    pub ty: TensorType,
    pub shape: &'a [usize],
    pub data: &'a [u8],
}

impl Shards {
    /// The shards that the index names; without an index, the one safetensors file.
    pub fn open(files: &[ModelFile]) -> Result<Self> {
        let index = files.iter().find(|f| f.name == INDEX);
        let weight_map = index.map(|file| weight_map(&file.bytes)).transpose()?;
        let mut names: Vec<String> = match &weight_map {
            Some(map) => map.values().cloned().collect(),
            None => {
                let all = files.iter().map(|f| &f.name).filter(|n| n.ends_with(".safetensors"));
                match all.cloned().collect::<Vec<_>>() {
                    one if one.len() == 1 => one,
                    many if many.len() > 1 => return Err(ModelError::NoFile(INDEX.into())),
                    _ => return Err(ModelError::NoFile(SINGLE.into())),
                }
            }
        };
        names.sort();
        names.dedup();
        let mut shards = Shards { files: Vec::new(), places: BTreeMap::new() };
        for name in names {
            let file = files.iter().find(|f| f.name == name).ok_or(ModelError::NoFile(name))?;
            shards.add(file)?;
        }
        if let Some(map) = weight_map {
            shards.check_index(&map)?;
        }
        Ok(shards)
    }

    /// Names of all tensors, each with its file.
    pub fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.places.iter().map(|(name, place)| (name.as_str(), self.files[place.shard].0.as_str()))
    }

    pub fn get(&self, name: &str) -> Result<Found<'_>> {
        let place = self.places.get(name);
        let place = place.ok_or_else(|| tensor_error(&self.files[0].0, name, "missing".into()))?;
        let (file, bytes) = &self.files[place.shard];
        let ty = match place.dtype {
            Dtype::F32 => TensorType::F32,
            Dtype::F16 => TensorType::F16,
            Dtype::BF16 => TensorType::BF16,
            other => {
                let message = format!("stored as {other:?}, which cannot be read; F32, F16 and BF16 can");
                return Err(tensor_error(file, name, message));
            }
        };
        Ok(Found { file, ty, shape: &place.shape, data: &bytes[place.data.clone()] })
    }

    fn add(&mut self, file: &ModelFile) -> Result<()> {
        let bad = |message: String| ModelError::Safetensors { file: file.name.clone(), message };
        check_header(&file.bytes).map_err(bad)?;
        // The crate checks offsets, sizes and that the data fills the file without gaps or overlaps.
        let (header, metadata) = SafeTensors::read_metadata(&file.bytes).map_err(|e| bad(e.to_string()))?;
        let start = header + 8;
        let shard = self.files.len();
        for (name, info) in metadata.tensors() {
            let (begin, end) = info.data_offsets;
            let place = Place {
                shard,
                dtype: info.dtype,
                shape: info.shape.clone(),
                data: start + begin..start + end,
            };
            if let Some(earlier) = self.places.insert(name.clone(), place) {
                let message = format!("also stands in {}", self.files[earlier.shard].0);
                return Err(tensor_error(&file.name, &name, message));
            }
        }
        self.files.push((file.name.clone(), file.bytes.clone()));
        Ok(())
    }

    fn check_index(&self, map: &HashMap<String, String>) -> Result<()> {
        for (name, file) in map {
            let found = self.places.get(name).map(|place| &self.files[place.shard].0);
            if found != Some(file) {
                let message = match found {
                    Some(other) => format!("should stand in {file}, but stands in {other}"),
                    None => format!("should stand in {file}, but does not"),
                };
                return Err(tensor_error(INDEX, name, message));
            }
        }
        match self.names().find(|(name, _)| !map.contains_key(*name)) {
            Some((name, file)) => {
                Err(tensor_error(INDEX, name, format!("stands in {file}, but not in the index")))
            }
            None => Ok(()),
        }
    }
}

fn weight_map(bytes: &[u8]) -> Result<HashMap<String, String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let index: Index = json(INDEX, bytes)?;
    if index.weight_map.is_empty() {
        return Err(super::field_error(INDEX, "weight_map", "is empty".into()));
    }
    Ok(index.weight_map)
}

/// What the crate lets pass: a header of 100 MB before anything is known, and one name twice.
fn check_header(bytes: &[u8]) -> std::result::Result<(), String> {
    let Some(length) = bytes.first_chunk::<8>() else {
        return Err(format!("the file has {} bytes; a header's length alone takes 8", bytes.len()));
    };
    let (length, left) = (u64::from_le_bytes(*length), bytes.len() as u64 - 8);
    if length > left.min(MAX_HEADER) {
        return Err(format!(
            "the header claims {length} bytes at byte 0; {left} follow and {MAX_HEADER} are allowed"
        ));
    }
    let header = &bytes[8..8 + length as usize];
    let mut reader = serde_json::Deserializer::from_slice(header);
    (&mut reader).deserialize_map(NoDuplicates).map_err(|e| format!("the header at byte 8: {e}"))
}

/// Walks a map's keys and refuses one that comes twice.
struct NoDuplicates;

impl<'de> Visitor<'de> for NoDuplicates {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
            if seen.contains(&name) {
                return Err(serde::de::Error::custom(format!("tensor `{name}` stands twice")));
            }
            seen.insert(name);
        }
        Ok(())
    }
}
