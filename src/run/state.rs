//! The states of a run's steps, and the one place where they change.

use std::collections::HashMap;

use petgraph::Direction;
use petgraph::graph::NodeIndex;
use pipe_store::{Digest, Output};

use super::{Outcome, StepRun};
use crate::pipeline::Pipeline;
use crate::plan::Frontier;

pub enum State {
    /// Producers are not all done.
    Blocked,
    /// May be looked up.
    Ready,
    /// With a worker.
    Running {
        key: Digest,
    },
    Done {
        key: Digest,
        outputs: Vec<Output>,
        outcome: Outcome,
        wall_ms: u64,
    },
    /// Will have no outputs that others may use.
    Failed {
        key: Option<Digest>,
        outputs: Vec<Output>,
        outcome: Outcome,
        wall_ms: u64,
    },
}

/// Every step's state, with the counters that follow from them.
pub struct States<'a> {
    pipeline: &'a Pipeline,
    states: Vec<State>,
    frontier: Frontier,
    ready: Vec<NodeIndex>,
    running: usize,
    /// Recorded steps that run again, whatever their state is now.
    remaking: HashMap<NodeIndex, Remaking>,
}

/// A recorded step whose bytes are gone runs again for those who wait for them.
struct Remaking {
    /// What is recorded, for consumers that do not need the bytes.
    outputs: Vec<Output>,
    waiters: Vec<NodeIndex>,
}

impl<'a> States<'a> {
    pub fn new(pipeline: &'a Pipeline) -> Self {
        let (frontier, ready) = Frontier::new(pipeline);
        let states = pipeline.graph.node_indices().map(|_| State::Blocked).collect();
        let mut all =
            States { pipeline, states, frontier, ready: Vec::new(), running: 0, remaking: HashMap::new() };
        ready.into_iter().for_each(|node| all.set(node, State::Ready));
        all
    }

    pub fn running(&self) -> usize {
        self.running
    }

    /// The steps that became ready since the last call.
    pub fn take_ready(&mut self) -> Vec<NodeIndex> {
        std::mem::take(&mut self.ready)
    }

    pub fn outputs(&self, node: NodeIndex) -> Option<&[Output]> {
        match &self.states[node.index()] {
            State::Done { outputs, .. } => Some(outputs),
            _ => self.remaking.get(&node).map(|r| r.outputs.as_slice()),
        }
    }

    pub fn key(&self, node: NodeIndex) -> Option<Digest> {
        match &self.states[node.index()] {
            State::Running { key } | State::Done { key, .. } => Some(*key),
            State::Failed { key, .. } => *key,
            State::Blocked | State::Ready => None,
        }
    }

    /// The only transition. A step that is done makes those ready that waited for it alone.
    pub fn set(&mut self, node: NodeIndex, state: State) {
        match &state {
            State::Running { .. } => self.running += 1,
            State::Ready => self.ready.push(node),
            _ => {}
        }
        let done = matches!(state, State::Done { .. });
        if let State::Running { .. } = std::mem::replace(&mut self.states[node.index()], state) {
            self.running -= 1;
        }
        if done {
            // The other consumers of a step that ran again were let go when it was first done.
            let next = match self.remaking.remove(&node) {
                Some(remaking) => remaking.waiters,
                None => self.frontier.done(self.pipeline, node),
            };
            next.into_iter().for_each(|consumer| self.set(consumer, State::Ready));
        }
    }

    pub fn is_remaking(&self, node: NodeIndex) -> bool {
        self.remaking.contains_key(&node)
    }

    /// `waiter` needs bytes of `producer` that are gone: both go back, the waiter until the producer is done
    /// again. False if the producer ran in this very run, so that running it again cannot help.
    pub fn remake(&mut self, producer: NodeIndex, waiter: NodeIndex) -> bool {
        match (self.remaking.get_mut(&producer), &self.states[producer.index()]) {
            (Some(remaking), _) => remaking.waiters.push(waiter),
            (None, State::Done { outputs, outcome: Outcome::Hit, .. }) => {
                let remaking = Remaking { outputs: outputs.clone(), waiters: vec![waiter] };
                self.remaking.insert(producer, remaking);
                self.set(producer, State::Ready);
            }
            _ => return false,
        }
        self.set(waiter, State::Blocked);
        true
    }

    /// The end: what has not run says why.
    pub fn into_steps(self, pipeline: &Pipeline, cancelled: bool) -> Vec<StepRun> {
        let mut states: Vec<_> = self.states.into_iter().map(Some).collect();
        // The failed ancestor a step waits for, in order, so that a chain names its first cause.
        let mut cause: Vec<Option<String>> = vec![None; states.len()];
        let mut steps = Vec::with_capacity(states.len());
        for &node in &pipeline.order {
            let name = pipeline.graph[node].name.clone();
            let state = states[node.index()].take().expect("BUG: the order holds every node once");
            let (key, outputs, outcome, wall_ms) = match state {
                State::Done { key, outputs, outcome, wall_ms } => (Some(key), outputs, outcome, wall_ms),
                State::Failed { key, outputs, outcome, wall_ms } => {
                    cause[node.index()] = Some(name.clone());
                    (key, outputs, outcome, wall_ms)
                }
                State::Running { .. } => unreachable!("BUG: the loop ended with a step running"),
                State::Blocked | State::Ready => {
                    let failed = pipeline
                        .graph
                        .neighbors_directed(node, Direction::Incoming)
                        .find_map(|n| cause[n.index()].clone());
                    let because = match &failed {
                        Some(step) => format!("`{step}` failed"),
                        None if cancelled => "the run was stopped".to_owned(),
                        None => "another step failed; --keep-going runs it all the same".to_owned(),
                    };
                    cause[node.index()] = failed;
                    (None, vec![], Outcome::Skipped { because }, 0)
                }
            };
            steps.push(StepRun { node, name, key, outputs, outcome, wall_ms });
        }
        steps
    }
}
