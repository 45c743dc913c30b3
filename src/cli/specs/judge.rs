//! Packs a model in every width that is wanted and judges how faithful each spec is. The packed weights stay in a
//! folder for the measurements that follow.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use memmap2::Mmap;
use pipe_kernels::{Engine, PackError, PackedModel, Packing, Spec, Width};

use crate::cli::error::{CliError, Exit};
use crate::cli::out;
use crate::model::Model;
use crate::specs::{Fidelity, FidelityError, Pair, walk};

/// A spec's packed weights and how faithful it is.
pub struct Judged {
    pub spec: Spec,
    pub packed: PathBuf,
    pub weights_bytes: u64,
    pub same_weights: Fidelity,
    pub stored_weights: Fidelity,
}

/// What judging needs.
pub struct Judge<'a> {
    pub model: &'a Model,
    pub engine: &'a Engine,
    pub windows: &'a [Vec<u32>],
    pub folder: &'a Path,
    pub cancel: &'a AtomicBool,
    /// Told what begins, and how many steps it has.
    pub begin: &'a dyn Fn(&str, usize),
    /// Told how many steps are done.
    pub beat: &'a dyn Fn(usize),
}

impl Judge<'_> {
    /// All of these specs, those of one width together.
    pub fn judge(&self, specs: &[Spec]) -> Result<Vec<Judged>, CliError> {
        let stored = self.pack(Width::F32.into())?;
        let mut judged = Vec::new();
        for width in Width::ALL {
            let of_width: Vec<_> = specs.iter().copied().filter(|spec| spec.width() == width).collect();
            if !of_width.is_empty() {
                judged.extend(self.judge_width(width, &of_width, &stored)?);
            }
        }
        judged.sort_by_key(|judged| specs.iter().position(|&spec| spec == judged.spec));
        Ok(judged)
    }

    fn judge_width(&self, width: Width, specs: &[Spec], stored: &Packed) -> Result<Vec<Judged>, CliError> {
        // What f32 makes of the stored weights, of the narrowed ones, and what each spec makes of those.
        let narrow = if width == Width::F32 { None } else { Some(self.pack(width.into())?) };
        let through = match narrow {
            None => None,
            Some(_) => Some(self.pack(Packing { width: Width::F32, through: Some(width) })?),
        };
        let weights = narrow.as_ref().unwrap_or(stored);
        let mut models = vec![stored.open(Spec::F32)?];
        if let Some(through) = &through {
            models.push(through.open(Spec::F32)?);
        }
        let (references, same) = (models.len(), models.len() - 1);
        for &spec in specs {
            models.push(weights.open(spec)?);
        }
        let pairs = (references..models.len())
            .flat_map(|other| [Pair { reference: same, other }, Pair { reference: 0, other }])
            .collect::<Vec<_>>();

        let names = specs.iter().map(|spec| spec.name()).collect::<Vec<_>>().join(", ");
        (self.begin)(&format!("fidelity of {names}"), self.windows.iter().map(Vec::len).sum());
        let models: Vec<&PackedModel<'_>> = models.iter().collect();
        let found = walk(self.engine, &models, &pairs, self.windows, self.cancel, self.beat);
        let found = found.map_err(|e| match e {
            FidelityError::Cancelled => stopped(),
            e => CliError::new(Exit::Step, e),
        })?;
        // The reference has served; its file goes before the next is made.
        if let Some(through) = &through {
            let _ = std::fs::remove_file(&through.path);
        }
        let judged = specs.iter().zip(found.chunks(2)).map(|(&spec, two)| Judged {
            spec,
            packed: weights.path.clone(),
            weights_bytes: weights.map.len() as u64,
            same_weights: two[0],
            stored_weights: two[1],
        });
        Ok(judged.collect())
    }

    fn pack(&self, packing: Packing) -> Result<Packed, CliError> {
        let name = match packing.through {
            None => format!("{}", packing.width),
            Some(through) => format!("{}-through-{through}", packing.width),
        };
        (self.begin)(&format!("packing {}", name.replace('-', " ")), 0);
        let path = self.folder.join(format!("{name}.safetensors"));
        let io = |e: std::io::Error| CliError::new(Exit::Step, format!("{}: {e}", path.display()));
        let fail = |e: &dyn std::fmt::Display| CliError::new(Exit::Step, format!("packing {name}: {e}"));
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).map_err(io)?;
        let (weights, geometry) = (self.model.weights().map_err(|e| fail(&e))?, self.model.geometry());
        pipe_kernels::pack(&weights, &geometry, packing, &mut file).map_err(|e| match e {
            PackError::Write(e) => {
                let need = pipe_kernels::pack::packed_len(&weights, &geometry, packing).unwrap_or(0);
                io(e).hint(format!("set TMPDIR to a folder with room: this file takes {}", out::bytes(need)))
            }
            e => fail(&e),
        })?;
        // SAFETY: the file is in a folder of this process alone.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Packed { path, map })
    }
}

/// A packed file and its bytes.
struct Packed {
    path: PathBuf,
    map: Mmap,
}

impl Packed {
    fn open(&self, spec: Spec) -> Result<PackedModel<'_>, CliError> {
        PackedModel::open(&self.map, spec).map_err(|e| CliError::new(Exit::Step, format!("{spec}: {e}")))
    }
}

/// The user said stop.
pub fn stopped() -> CliError {
    CliError::new(Exit::Interrupted, "stopped; nothing is kept")
}
