//! `pipe store export` and `import`: a store as one file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::error::{CliError, Exit};
use super::{Context, out};
use crate::cache::{self, CacheError};

pub fn export(path: &Path, max_bytes: Option<u64>, context: &Context) -> Result<(), CliError> {
    let store = context.open_store()?;
    let io = |e: std::io::Error| CliError::new(Exit::Step, format!("{}: {e}", path.display()));
    // Written beside its place and renamed, so that a half-written file never bears the name.
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    let mut writer = BufWriter::new(file.as_file_mut());
    let exported = cache::export(&store, max_bytes, &mut writer).map_err(|e| failed(path, &e))?;
    writer.flush().map_err(io)?;
    drop(writer);
    let bytes = file.as_file().metadata().map_err(io)?.len();
    file.persist(path).map_err(|e| io(e.error))?;
    if context.out.json {
        return context.out.value(&serde_json::json!({ "file": path, "bytes": bytes, "held": exported }));
    }
    let cache::Exported { objects, records, runs, left_out, hollow, .. } = exported;
    context.out.line(format!(
        "{}: {objects} objects, {records} records, {runs} runs, {}",
        path.display(),
        out::bytes(bytes)
    ))?;
    if left_out + hollow > 0 {
        context.out.note(format!("left out: {left_out} that did not fit, {hollow} whose bytes are not here"));
    }
    Ok(())
}

pub fn import(path: &Path, context: &Context) -> Result<(), CliError> {
    let store = context.open_store()?;
    let mut file =
        File::open(path).map_err(|e| CliError::new(Exit::Usage, format!("{}: {e}", path.display())))?;
    let imported = cache::import(&mut file, &store)
        .map_err(|e| failed(path, &e).hint("what was not taken is computed again by `pipe run`"))?;
    if context.out.json {
        return context.out.value(&imported);
    }
    let cache::Imported { objects, records, runs, known, disagree } = imported;
    context.out.line(format!("{objects} objects, {records} records, {runs} runs; {known} were here"))?;
    if disagree > 0 {
        context.out.note(format!(
            "{disagree} records name other outputs than ours for the same key; ours stand. `pipe doctor` checks this machine"
        ));
    }
    Ok(())
}

fn failed(path: &Path, e: &CacheError) -> CliError {
    let exit = if matches!(e, CacheError::Store(_)) { Exit::Store } else { Exit::Step };
    CliError::new(exit, format!("{}: {e}", path.display()))
}
