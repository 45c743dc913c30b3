//! No false alarm: whatever was asked, however it was computed, an honest answer verifies.

use pipe::recipe::op::TraceLevel;
use pipe_kernels::sampler::philox4x32;
use pipe_kernels::{Engine, Implementation, Sampler};

use crate::toy::{How, model, run};

/// Numbers that follow from a run's number.
struct Numbers {
    run: u32,
    drawn: u32,
}

impl Numbers {
    fn below(&mut self, n: u32) -> u32 {
        self.drawn += 1;
        philox4x32([self.run, self.drawn, 0, 0], [0, 0])[0] % n
    }
}

/// `PIPE_TEST_CLEAN_RUNS=10000` for a night's worth.
#[test]
fn clean_runs_raise_no_alarm() {
    let runs = match std::env::var("PIPE_TEST_CLEAN_RUNS") {
        Ok(count) => count.parse().expect("PIPE_TEST_CLEAN_RUNS is a number"),
        Err(_) => 200,
    };
    let model = model();
    let best = Implementation::detect();
    let engines: Vec<Engine> = Implementation::available()
        .map(|implementation| (1, implementation))
        .chain([(2, best), (3, best)])
        .map(|(threads, implementation)| Engine::new(threads, implementation).unwrap())
        .collect();
    for number in 0..runs {
        let mut n = Numbers { run: number, drawn: 0 };
        let prompts: Vec<Vec<u32>> =
            (0..1 + n.below(3)).map(|_| (0..1 + n.below(40)).map(|_| n.below(320)).collect()).collect();
        let sampler = match n.below(3) {
            0 => Sampler::Greedy,
            kind => Sampler::Draw {
                temperature: 0.5 + n.below(100) as f32 / 100.0,
                top_k: (kind == 1).then(|| 1 + n.below(50)),
                top_p: (n.below(2) == 0).then(|| 0.5 + n.below(50) as f32 / 100.0),
                seed: n.below(u32::MAX).into(),
            },
        };
        let how = How {
            level: TraceLevel::ALL[n.below(4) as usize],
            sampler,
            chunk: 1 + n.below(40) as usize,
            max_tokens: n.below(16) as usize,
        };
        let [one, other] = [0, 0].map(|_| n.below(engines.len() as u32) as usize);
        let made = run(&engines[one], &|_| model.clone(), &prompts, how);
        let verified = made.verify(&engines[other], &model, &sampler);
        assert_eq!(verified.differences, [], "run {number}: {how:?}, {prompts:?}");
        let generated: usize = made.answers.iter().map(Vec::len).sum();
        assert_eq!((verified.prompts, verified.tokens), (prompts.len(), generated));
        assert_eq!(generated, prompts.len() * how.max_tokens);
        let given: usize = prompts.iter().map(Vec::len).sum();
        assert_eq!(verified.positions, given + generated.saturating_sub(prompts.len()));
    }
}
