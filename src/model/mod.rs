//! A model as its files hold it: shape, weights, tokenizer, chat template. Bytes stay in the map they came
//! in; views borrow. Knows GGUF and Hugging Face folders; knows no store, no step, no arithmetic.

mod bytes;
pub mod chat;
mod describe;
mod error;
pub mod gguf;
pub mod hf;
pub mod llama;
pub mod stored;
pub mod tokenizer;
pub mod write;

use pipe_kernels::Geometry;
use pipe_kernels::weights::ModelWeights;

pub use bytes::Bytes;
pub use chat::{ChatError, ChatTemplate};
pub use describe::{Description, TensorDescription};
pub use error::ModelError;
pub use tokenizer::{Detokenizer, Tokenizer, TokenizerError, Utf8Stream};

use gguf::{Gguf, GgufError};
use hf::Folder;
use tokenizer::Cut;

type Result<T> = std::result::Result<T, ModelError>;

/// One file of a model, under the name it has in its folder.
#[derive(Clone, Debug)]
pub struct ModelFile {
    pub name: String,
    pub bytes: Bytes,
}

impl ModelFile {
    pub fn new(name: impl Into<String>, bytes: Bytes) -> Self {
        ModelFile { name: name.into(), bytes }
    }
}

/// The token ids with a role, as the model's files name them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Specials {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unk: Option<u32>,
    pub pad: Option<u32>,
    /// Did the model learn with a beginning-of-text token in front? A fact; nothing here adds one.
    pub add_bos: bool,
    /// End of text, of turn and of message; sorted, each once.
    pub stop: Vec<u32>,
}

impl Specials {
    fn sorted(mut ids: Vec<u32>) -> Vec<u32> {
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

/// An opened model. Everything about its header, shapes and special ids has been checked.
#[derive(Debug)]
pub struct Model {
    geometry: Geometry,
    specials: Specials,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Gguf { file: String, gguf: Box<Gguf> },
    Folder(Box<Folder>),
}

impl Model {
    /// One GGUF file, or the files of a Hugging Face folder. What a file is, its content decides.
    pub fn open(files: &[ModelFile]) -> Result<Self> {
        let is_gguf = |file: &&ModelFile| file.bytes.starts_with(b"GGUF");
        let mut ggufs = files.iter().filter(is_gguf);
        match (ggufs.next(), ggufs.next()) {
            (Some(a), Some(b)) => {
                let both = format!("{} and {} are both GGUF files; one model is one file", a.name, b.name);
                Err(ModelError::NoModel(both))
            }
            (Some(file), None) => Self::open_gguf(file),
            (None, _) if files.iter().any(|f| f.name == hf::CONFIG) => Self::open_folder(files),
            (None, _) => match files {
                // A damaged file says more about itself than its name does.
                [file] => Self::open_gguf(file),
                [] => Err(ModelError::NoModel("no files".into())),
                _ => {
                    let names: Vec<_> = files.iter().map(|f| f.name.as_str()).collect();
                    let names = names.join(", ");
                    Err(ModelError::NoModel(format!("neither a GGUF file nor {} among: {names}", hf::CONFIG)))
                }
            },
        }
    }

    fn open_gguf(file: &ModelFile) -> Result<Self> {
        let wrap = |source| ModelError::Gguf { file: file.name.clone(), source };
        let gguf = Gguf::parse(file.bytes.clone()).map_err(wrap)?;
        let geometry = gguf.geometry().map_err(wrap)?;
        let specials = gguf.specials(geometry.vocab).map_err(wrap)?;
        Ok(Model {
            geometry,
            specials,
            source: Source::Gguf { file: file.name.clone(), gguf: Box::new(gguf) },
        })
    }

    fn open_folder(files: &[ModelFile]) -> Result<Self> {
        let folder = Folder::open(files)?;
        let geometry = folder.geometry()?;
        let specials = folder.specials(geometry.vocab)?;
        Ok(Model { geometry, specials, source: Source::Folder(Box::new(folder)) })
    }

    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Views of all tensors, borrowed from the files.
    pub fn weights(&self) -> Result<ModelWeights<'_>> {
        match &self.source {
            Source::Gguf { file, gguf } => gguf.weights(&self.geometry).map_err(|e| in_gguf(file, e)),
            Source::Folder(folder) => folder.weights(&self.geometry),
        }
    }

    /// Both directions between text and ids. Costs some 100 ms; for ids to text alone take `detokenizer`.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let (file, vocabulary, merges, cut) = match &self.source {
            Source::Gguf { file, gguf } => {
                let vocabulary = gguf.vocabulary().map_err(|e| in_gguf(file, e))?;
                let (merges, pre) = gguf.merges().map_err(|e| in_gguf(file, e))?;
                (file.as_str(), vocabulary, merges, Cut::named(pre))
            }
            Source::Folder(folder) => {
                let (vocabulary, merges, cut) = folder.tokenizer(self.geometry.vocab)?;
                (hf::TOKENIZER, vocabulary, merges, Ok(cut))
            }
        };
        let built = cut.and_then(|cut| Tokenizer::new(vocabulary, merges, cut));
        built.map_err(|source| ModelError::Tokenizer { file: file.into(), source })
    }

    /// Ids to text, built from the vocabulary alone.
    pub fn detokenizer(&self) -> Result<Detokenizer> {
        let vocabulary = match &self.source {
            Source::Gguf { file, gguf } => gguf.vocabulary().map_err(|e| in_gguf(file, e))?,
            Source::Folder(folder) => folder.vocabulary(self.geometry.vocab)?,
        };
        Ok(Detokenizer::new(&vocabulary))
    }

    /// Ids at which an answer ends; sorted.
    pub fn stop_ids(&self) -> Vec<u32> {
        self.specials.stop.clone()
    }

    /// The ids with a role, and whether the model expects a beginning-of-text token.
    pub fn specials(&self) -> &Specials {
        &self.specials
    }

    /// The model's own chat template; None when it has none.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>> {
        let source = match &self.source {
            Source::Gguf { file, gguf } => {
                gguf.chat_template().map_err(|e| in_gguf(file, e))?.map(str::to_owned)
            }
            Source::Folder(folder) => folder.chat_template()?,
        };
        let Some(source) = source else { return Ok(None) };
        let s = &self.specials;
        Ok(Some(ChatTemplate {
            source,
            bos: self.special_text("bos_token", s.bos)?,
            eos: self.special_text("eos_token", s.eos)?,
            unk: self.special_text("unk_token", s.unk)?,
            pad: self.special_text("pad_token", s.pad)?,
        }))
    }

    /// The text of a special token: as a folder's configuration states it, else as the vocabulary spells it.
    fn special_text(&self, key: &str, id: Option<u32>) -> Result<Option<String>> {
        match (&self.source, id) {
            (Source::Folder(folder), _) if folder.special_text(key).is_some() => {
                Ok(folder.special_text(key).map(str::to_owned))
            }
            (_, None) => Ok(None),
            (Source::Gguf { file, gguf }, Some(id)) => {
                Ok(gguf.token_text(id).map_err(|e| in_gguf(file, e))?.map(str::to_owned))
            }
            (Source::Folder(folder), Some(id)) => {
                let vocabulary = folder.vocabulary(self.geometry.vocab)?;
                Ok(vocabulary.tokens.into_iter().nth(id as usize))
            }
        }
    }
}

fn in_gguf(file: &str, source: GgufError) -> ModelError {
    ModelError::Gguf { file: file.into(), source }
}
