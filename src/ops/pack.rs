//! The `pack` op: a model's weights rearranged for the kernels, once per model and width, mapped ever after.

use pipe_kernels::{PackError, Packing};
use pipe_store::{Artifact, Output, StoreError};

use super::{Done, OpError, Progress, World};
use crate::key::Inputs;
use crate::recipe::op::Pack;

/// The one output of `pack`.
pub const OUTPUT: &str = "packed.safetensors";

pub fn run(
    op: &Pack,
    inputs: &Inputs,
    world: &World<'_>,
    _progress: &(dyn Fn(Progress) + Sync),
) -> Result<Done, OpError> {
    let model = world.open_model(inputs)?;
    let mut staged = world.store.stage()?;
    let packing = Packing { width: op.width, through: op.through };
    pipe_kernels::pack(&model.weights()?, &model.geometry(), packing, staged.file_mut()).map_err(
        |e| match e {
            PackError::Write(source) => StoreError::io("write", staged.path(), source).into(),
            e => OpError::from(e),
        },
    )?;
    world.check_cancelled()?;
    let (digest, length) = staged.commit()?;
    let artifact = Artifact { digest, length, media_type: "application/x-safetensors".into() };
    Ok(Done { outputs: vec![Output { name: OUTPUT.into(), artifact }], ..Done::default() })
}
