//! An error as a user meets it: what happened, what to do, the exit code.

use std::fmt;

use pipe_store::StoreError;

/// Exit codes, fixed: scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    Differ = 1,
    Usage = 2,
    Recipe = 3,
    Step = 4,
    Store = 5,
    Network = 6,
    Bug = 70,
    Interrupted = 130,
}

#[derive(Debug)]
pub struct CliError {
    pub exit: Exit,
    pub message: String,
    pub hint: Option<String>,
}

impl CliError {
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        CliError { exit, message: message.to_string(), hint: None }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<StoreError> for CliError {
    fn from(e: StoreError) -> Self {
        CliError::new(Exit::Store, e)
    }
}

impl From<crate::plan::PlanError> for CliError {
    fn from(e: crate::plan::PlanError) -> Self {
        use crate::plan::PlanError;
        let exit = match &e {
            PlanError::Store(_) => Exit::Store,
            PlanError::NoSuchStep { .. } => Exit::Usage,
            PlanError::Local { .. } => Exit::Step,
            PlanError::NoOutput { .. } => Exit::Recipe,
        };
        CliError::new(exit, e)
    }
}
