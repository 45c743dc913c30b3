//! Conditions on how scores changed, such as `fitness < -0.01`, by which a comparison fails.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::ScoreChange;

/// A score's name, a relation, a number; what stands on the left is the change of the score, B minus A.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// None: of any step.
    step: Option<String>,
    score: String,
    relation: Relation,
    number: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Relation {
    const ALL: [(&'static str, Relation); 4] =
        [("<=", Relation::AtMost), (">=", Relation::AtLeast), ("<", Relation::Less), (">", Relation::More)];

    fn holds(self, change: f64, number: f64) -> bool {
        match self {
            Relation::Less => change < number,
            Relation::AtMost => change <= number,
            Relation::More => change > number,
            Relation::AtLeast => change >= number,
        }
    }
}

/// What is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    #[error("`{0}` is no condition; write a score's name, <, <=, > or >=, and a number: 'fitness < -0.01'")]
    Form(String),
    #[error("`{0}` is no score's name; names have letters, digits, _ and -, with STEP/ in front if need be")]
    Name(String),
    #[error("`{0}` is no finite number")]
    Number(String),
    /// Said of conditions that are well formed: nothing would ever make them hold.
    #[error("`{condition}` speaks of a score that the two do not both have; {has}")]
    NoScore { condition: String, has: String },
}

impl FromStr for Condition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        let form = || ConditionError::Form(text.to_owned());
        let at = text.find(['<', '>']).ok_or_else(form)?;
        let (name, rest) = (text[..at].trim(), &text[at..]);
        let &(sign, relation) =
            Relation::ALL.iter().find(|(sign, _)| rest.starts_with(sign)).ok_or_else(form)?;
        let number = rest[sign.len()..].trim();
        let (step, score) = match name.rsplit_once('/') {
            Some((step, score)) => (Some(step), score),
            None => (None, name),
        };
        let plain = |name: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
        };
        if !plain(score) || !step.is_none_or(plain) {
            return Err(ConditionError::Name(name.to_owned()));
        }
        let value: Option<f64> = number.parse().ok().filter(|n: &f64| n.is_finite());
        let number = value.ok_or_else(|| ConditionError::Number(number.to_owned()))?;
        Ok(Condition { step: step.map(str::to_owned), score: score.to_owned(), relation, number })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = Relation::ALL.iter().find(|(_, r)| *r == self.relation).map_or("", |(sign, _)| sign);
        let step = self.step.as_ref().map_or_else(String::new, |step| format!("{step}/"));
        write!(f, "{step}{} {sign} {}", self.score, self.number)
    }
}

/// A condition, applied to one score.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judged {
    pub condition: String,
    pub score: ScoreChange,
    /// Also where the change cannot be told, since a score has no value: a gate that cannot look stays shut.
    pub holds: bool,
}

/// Applies every condition to every score it names; one that names none is an error.
pub fn judge(conditions: &[Condition], scores: &[ScoreChange]) -> Result<Vec<Judged>, ConditionError> {
    let mut judged = Vec::new();
    for condition in conditions {
        let named = |score: &&ScoreChange| {
            score.name == condition.score && condition.step.as_ref().is_none_or(|step| *step == score.step)
        };
        let before = judged.len();
        for score in scores.iter().filter(named) {
            let holds = score.change.is_none_or(|change| condition.relation.holds(change, condition.number));
            judged.push(Judged { condition: condition.to_string(), score: score.clone(), holds });
        }
        if judged.len() == before {
            let names: Vec<_> = scores.iter().map(|s| format!("{}/{}", s.step, s.name)).collect();
            let has = match names.is_empty() {
                true => "they have no scores: no step of both left a scores.json that is here".into(),
                false => format!("they have {}", names.join(", ")),
            };
            return Err(ConditionError::NoScore { condition: condition.to_string(), has });
        }
    }
    Ok(judged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(step: &str, name: &str, a: Option<f64>, b: Option<f64>) -> ScoreChange {
        let change = a.zip(b).map(|(a, b)| b - a);
        ScoreChange { step: step.into(), prompt: None, name: name.into(), a, b, change }
    }

    #[test]
    fn a_condition_is_on_the_change() {
        let scores =
            [score("s", "fitness", Some(0.93), Some(0.90)), score("t", "fitness", Some(0.5), Some(0.5))];
        let holds = |text: &str| -> Vec<bool> {
            judge(&[text.parse().unwrap()], &scores).unwrap().iter().map(|j| j.holds).collect()
        };
        assert_eq!(holds("fitness < -0.01"), [true, false]);
        assert_eq!(holds("fitness<-0.05"), [false, false]);
        assert_eq!(holds("t/fitness >= 0"), [true]);
        assert_eq!(holds("fitness > 0"), [false, false]);
        assert_eq!(holds("fitness <= 0"), [true, true]);
    }

    #[test]
    fn a_gate_that_cannot_look_stays_shut() {
        let scores = [score("s", "beauty", Some(0.5), None)];
        assert!(judge(&["beauty < -9".parse().unwrap()], &scores).unwrap()[0].holds);
        let error = judge(&["fitness < 0".parse().unwrap()], &scores).unwrap_err();
        assert!(error.to_string().contains("they have s/beauty"), "{error}");
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for bad in [
            "",
            "fitness",
            "fitness = 1",
            "< 1",
            "fitness <",
            "fitness < x",
            "fitness < NaN",
            "a b < 1",
            "x < 1 < 2",
        ] {
            assert!(bad.parse::<Condition>().is_err(), "{bad}");
        }
        let shown = "scores/fitness<=-1e-2".parse::<Condition>().unwrap().to_string();
        assert_eq!(shown, "scores/fitness <= -0.01");
    }
}
