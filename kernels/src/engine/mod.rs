//! The engine: threads, working memory, and the walk over the block graph that turns tokens into logits.
//! Knows no text and no sampling rule.

pub(crate) mod cache;
mod edit;
mod logits;
mod pass;
mod plan;
mod show;
mod tap;
pub(crate) mod team;
mod work;

use std::sync::{Mutex, PoisonError};

pub use cache::{KvCache, PIECE};
pub use edit::Edit;
pub use logits::Logits;
pub use tap::{BlockOutput, Place, Tap};

use crate::block::Block;
use crate::cpu::{Implementation, Kernels};
use crate::error::{ComputeError, NotFinite};
use crate::graph::BlockGraph;
use crate::pack::PackedModel;
use crate::selftest;
use pass::{Pass, Scratch};
use plan::Plan;
use team::Team;

/// Most rows one pass holds in working memory; longer batches take several passes.
const MAX_ROWS: usize = 512;

/// Which logits a slice wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Those of its last token.
    Last,
    /// Those of every token.
    All,
    /// None: its tokens only fill the cache.
    None,
}

/// Tokens that follow what a cache holds; part of a batch.
pub struct Slice<'a> {
    pub cache: &'a mut KvCache,
    pub tokens: &'a [u32],
    pub want: Want,
}

/// Threads and working memory, used by one forward pass at a time; callers queue.
pub struct Engine {
    kernels: &'static Kernels,
    implementation: Implementation,
    threads: usize,
    state: Mutex<State>,
}

struct State {
    team: Team,
    scratch: Scratch,
    plan: Plan,
    graph: Option<(crate::Geometry, BlockGraph)>,
}

impl Engine {
    /// An engine of `threads` threads, the caller's among them. Runs the start-up vectors on each of them: a
    /// machine that fails one computes nothing.
    pub fn new(threads: usize, implementation: Implementation) -> Result<Self, ComputeError> {
        let kernels = implementation.kernels().ok_or(ComputeError::Unavailable(implementation))?;
        let team = Team::new(threads)?;
        let failed = Mutex::new(None);
        team.run(&|_| {
            if let (Err(e), Ok(mut slot)) = (selftest::run(implementation), failed.lock()) {
                *slot = Some(e);
            }
        });
        if let Some(e) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(e.into());
        }
        let state = State { team, scratch: Scratch::new(threads), plan: Plan::default(), graph: None };
        Ok(Self { kernels, implementation, threads, state: Mutex::new(state) })
    }

    pub fn implementation(&self) -> Implementation {
        self.implementation
    }

    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Computes the tokens of every slice, appends them to its cache, and leaves the wanted logits in `logits`,
    /// slice by slice. The bits depend on nothing but the model and each sequence's tokens: not on how a prompt
    /// is cut into calls, on the batch, the threads or the implementation.
    ///
    /// On an error no cache has grown.
    pub fn forward(
        &self,
        model: &PackedModel<'_>,
        batch: &mut [Slice<'_>],
        logits: &mut Logits,
    ) -> Result<(), ComputeError> {
        self.observed(model, batch, logits, None)
    }

    /// [`Engine::forward`] with an observer, which is shown the blocks it wants and changes no bit.
    pub fn observed(
        &self,
        model: &PackedModel<'_>,
        batch: &mut [Slice<'_>],
        logits: &mut Logits,
        tap: Option<Tap<'_>>,
    ) -> Result<(), ComputeError> {
        self.edited(model, batch, logits, tap, None)
    }

    /// [`Engine::observed`] with an intervention. The caches then hold what followed from it.
    pub fn edited(
        &self,
        model: &PackedModel<'_>,
        batch: &mut [Slice<'_>],
        logits: &mut Logits,
        tap: Option<Tap<'_>>,
        edit: Option<Edit<'_>>,
    ) -> Result<(), ComputeError> {
        // A panicking observer leaves nothing half-done that the next call reads.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { team, scratch, plan, graph } = &mut *state;
        if graph.as_ref().is_none_or(|(g, _)| *g != model.geometry) {
            *graph = Some((model.geometry, BlockGraph::new(&model.geometry)));
        }
        let schedule = graph.as_ref().map_or(&[][..], |(_, graph)| graph.schedule());

        selftest::environment()?;
        plan::check(&model.geometry, batch)?;
        for slice in batch.iter_mut() {
            slice.cache.reserve(slice.cache.len() + slice.tokens.len())?;
        }
        logits.prepare(&model.geometry, batch)?;
        let (mut slice, mut offset) = (0, 0);
        while plan.fill(batch, &mut slice, &mut offset, MAX_ROWS) {
            plan.cut(&model.geometry, team.size());
            let mut pass = Pass::new(model, self.kernels, schedule, plan, scratch, logits)?;
            if let Some(fault) = pass.run(team, tap, edit)? {
                let first = name_the_first(&mut pass, team, schedule, edit)?;
                return Err(first.unwrap_or_else(|| fault.to_error(plan, schedule)));
            }
            logits.filled += plan.wanted.len();
        }
        logits.finish();
        for slice in batch {
            slice.cache.set_len(slice.cache.len() + slice.tokens.len());
        }
        Ok(())
    }
}

/// Runs a pass that failed once more, looking at every block, and names the first that gave a bad value.
fn name_the_first(
    pass: &mut Pass<'_>,
    team: &Team,
    schedule: &[Block],
    edit: Option<Edit<'_>>,
) -> Result<Option<ComputeError>, ComputeError> {
    // By block, then by place, whichever thread comes upon it.
    let first: Mutex<Option<(usize, Place, usize, f32)>> = Mutex::new(None);
    let see = |output: BlockOutput<'_>| {
        let bad = output.rows().find_map(|(place, row)| {
            let element = row.iter().position(|v| !v.is_finite())?;
            Some((place, element, row[element]))
        });
        if let (Some((place, element, value)), Some(block)) =
            (bad, schedule.iter().position(|&b| b == output.block))
        {
            let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
            if first.is_none_or(|(b, p, ..)| (block, place) < (b, p)) {
                *first = Some((block, place, element, value));
            }
        }
    };
    pass.run(team, Some(Tap { wants: &|block| block != Block::Sample, see: &see }), edit)?;
    let first = first.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(first.map(|(block, place, element, value)| not_finite(schedule[block], place, element, value)))
}

fn not_finite(block: Block, place: Place, element: usize, value: f32) -> ComputeError {
    let what = if value.is_nan() { NotFinite::Nan } else { NotFinite::Infinity };
    ComputeError::NotFinite { block, sequence: place.sequence, position: place.position, element, what }
}
