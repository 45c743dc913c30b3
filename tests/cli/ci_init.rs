//! `pipe ci init`: the workflow is YAML, and its commands do what they say.

use std::path::Path;
use std::process::Command;

use saphyr::{LoadableYamlNode, Yaml};

use crate::space::{Ran, Space};

fn yaml<'a>(text: &'a str) -> Yaml<'a> {
    let mut documents = Yaml::load_from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(documents.len(), 1);
    documents.remove(0)
}

/// The scripts of a workflow, by the names of their steps.
fn github_scripts(text: &str) -> Vec<(String, String)> {
    let document = yaml(text);
    let steps = document["jobs"]["pipe"]["steps"].as_vec().unwrap();
    let named = |step: &Yaml<'_>| {
        let script = step.as_mapping_get("run")?.as_str()?.to_owned();
        Some((step["name"].as_str().unwrap().to_owned(), script))
    };
    steps.iter().filter_map(named).collect()
}

impl Space {
    /// A job's script, as the CI system runs it: `pipe` on the PATH.
    fn script(&self, script: &str, env: &[(&str, &Path)]) -> Ran {
        let folder = Path::new(env!("CARGO_BIN_EXE_pipe")).parent().unwrap();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("bash");
        command.args(["-eo", "pipefail", "-c", script]).current_dir(self.path(".")).env("PATH", path);
        command.env("PIPE_STORE", self.path("job-store")).env("RECIPE", "tiny.toml");
        command.envs(env.iter().copied());
        Ran::from(command.output().unwrap())
    }
}

#[test]
fn a_github_workflow_runs_and_gates() {
    let space = Space::new();
    space.pipe(&["ci", "init", "github", "--recipe", "tiny.toml"]).ok();
    let text = std::fs::read_to_string(space.path(".github/workflows/pipe.yml")).unwrap();
    let document = yaml(&text);
    assert!(document["on"]["schedule"][0]["cron"].as_str().is_some(), "{text}");
    assert_eq!(document["env"]["RECIPE"].as_str(), Some("tiny.toml"));
    let steps = document["jobs"]["pipe"]["steps"].as_vec().unwrap();
    let used: Vec<_> = steps.iter().filter_map(|s| s.as_mapping_get("uses")?.as_str()).collect();
    assert!(used.iter().any(|u| u.starts_with("actions/cache/restore@")), "{used:?}");
    assert!(used.iter().any(|u| u.starts_with("actions/cache/save@")), "{used:?}");
    let scripts = github_scripts(&text);
    let names: Vec<_> = scripts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "Install pipe",
            "Take what earlier jobs computed",
            "Run",
            "Compare with the last result",
            "Keep this result for the next job",
            "Reproduce the last result",
        ]
    );
    assert_eq!(scripts[0].1.trim(), "cargo install --locked --path .");
    assert!(scripts[5].1.contains("pipe reproduce \"$RUNNER_TEMP/before.car\""), "{}", scripts[5].1);

    // Three jobs, each on a bare machine that has only what the cache carries.
    let cache = space.path("temp/pipe");
    let mut bundles = Vec::new();
    for prompt in ["France", "France", "Spain"] {
        space.edit("tiny.toml", if prompt == "Spain" { "France" } else { prompt }, prompt);
        let _ = std::fs::remove_dir_all(space.path("temp/store"));
        std::fs::create_dir_all(&cache).unwrap();
        let (temp, env, store) = (space.path("temp"), space.path("github-env"), space.path("temp/store"));
        let env = [("RUNNER_TEMP", &*temp), ("GITHUB_ENV", &*env), ("PIPE_STORE", &*store)];
        let mut ran = Vec::new();
        for (name, script) in &scripts[1..5] {
            let done = space.script(script, &env);
            assert_eq!(done.code, 0, "{name}: {}{}", done.stdout, done.stderr);
            ran.push(done);
        }
        bundles.push(ran[1].stdout.lines().last().unwrap().to_owned());
        let hits = ran[1].stderr.lines().last().unwrap().to_owned();
        match bundles.len() {
            1 => assert_eq!(ran[2].stdout, "", "nothing to compare with"),
            2 => assert!(hits.contains("0 ran") && ran[2].stdout.contains("the same: "), "{hits}"),
            _ => assert!(ran[2].stdout.contains("different, first in prompt"), "{}", ran[2].stdout),
        }
    }
    assert!(bundles[0] == bundles[1] && bundles[1] != bundles[2], "{bundles:?}");
    assert!(space.path("diff.html").exists() && space.path("pipe.xml").exists());
    // What keeps the two from being compared fails the job, conditions or not.
    std::fs::write(cache.join("last.car"), "no car").unwrap();
    let (temp, store) = (space.path("temp"), space.path("temp/store"));
    let ran = space.script(&scripts[3].1, &[("RUNNER_TEMP", &*temp), ("PIPE_STORE", &*store)]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("last.car"), "{}", ran.stderr);
}

#[test]
fn conditions_and_commands_stand_as_they_were_given() {
    let space = Space::new();
    let given = [
        "--fail-on",
        "fitness<-0.02",
        "--fail-on",
        "answer/beauty <= -0.1",
        "--install",
        "./get \"pipe\" # it",
    ];
    space.pipe(&[&["ci", "init", "github", "--recipe", "tiny.toml"], &given[..]].concat()).ok();
    let text = std::fs::read_to_string(space.path(".github/workflows/pipe.yml")).unwrap();
    let scripts = github_scripts(&text);
    assert_eq!(scripts[0].1.trim(), "./get \"pipe\" # it");
    let compare = &scripts.iter().find(|(name, _)| name.starts_with("Compare")).unwrap().1;
    let gate = "--html diff.html --fail-on 'fitness < -0.02' --fail-on 'answer/beauty <= -0.1'\n";
    assert!(compare.contains(gate), "{compare}");
}

#[test]
fn a_gitlab_pipeline_is_one_too() {
    let space = Space::new();
    let json = space.pipe(&["ci", "init", "gitlab", "--recipe", "tiny.toml", "--json"]).ok();
    let told: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&told["file"], &told["fail_on"]), (&".gitlab-ci.yml".into(), &serde_json::json!([])));
    let text = std::fs::read_to_string(space.path(".gitlab-ci.yml")).unwrap();
    let document = yaml(&text);
    let job = &document["pipe"];
    assert_eq!(job["artifacts"]["reports"]["junit"].as_str(), Some("pipe.xml"));
    assert_eq!(job["cache"]["paths"][0].as_str(), Some(".pipe-cache/"));
    let scripts: Vec<_> = job["script"].as_vec().unwrap().iter().map(|s| s.as_str().unwrap()).collect();
    assert!(scripts.last().unwrap().contains("pipe reproduce .pipe-before.car"), "{scripts:?}");
    let main = Path::new("main");
    let env = [("CI_COMMIT_BRANCH", main), ("CI_DEFAULT_BRANCH", main)];
    for script in &scripts[..4] {
        let ran = space.script(script, &env);
        assert_eq!(ran.code, 0, "{script}: {}{}", ran.stdout, ran.stderr);
    }
    assert!(space.path(".pipe-cache/last.car").exists() && space.path(".pipe-cache/store.cache").exists());
    assert!(space.script(scripts[2], &env).ok().contains("the same: "));
}

#[test]
fn nothing_is_overwritten_unasked() {
    let space = Space::new();
    let init =
        |more: &[&str]| space.pipe(&[&["ci", "init", "gitlab", "--recipe", "tiny.toml"], more].concat());
    space.write(".gitlab-ci.yml", "mine\n");
    assert!(init(&[]).fails(2).contains("--force"));
    assert_eq!(std::fs::read_to_string(space.path(".gitlab-ci.yml")).unwrap(), "mine\n");
    init(&["--force"]).ok();
    assert!(std::fs::read_to_string(space.path(".gitlab-ci.yml")).unwrap().contains("pipe run"));
    init(&["--force", "--install", "a\nb"]).fails(2);
    init(&["--force", "--fail-on", "fitness"]).fails(2);
    space.pipe(&["ci", "init", "gitlab", "--force"]).fails(3);
    space.pipe(&["ci", "init", "jenkins"]).fails(2);
    let absolute = space.path("tiny.toml");
    space.pipe(&["ci", "init", "gitlab", "--force", "--recipe", absolute.to_str().unwrap()]).fails(2);
    std::fs::copy(&absolute, space.path("my 'recipe'.toml")).unwrap();
    space.pipe(&["ci", "init", "gitlab", "--force", "--recipe", "my 'recipe'.toml"]).fails(2);
}
