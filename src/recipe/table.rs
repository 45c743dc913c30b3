//! Reading a TOML table key by key: every getter reports its own mistake and goes on. Knows no op.

use std::fmt;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::diagnostic::Mistake;
use super::near::did_you_mean;
use super::span::Span;

/// What a table describes, for messages.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'r> {
    Recipe,
    Pipeline,
    Step(&'r str),
    /// A table inside a step: its key, or what it is one of.
    Part(&'r str),
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Recipe => f.write_str("the recipe"),
            Subject::Pipeline => f.write_str("[pipeline]"),
            Subject::Step(name) => write!(f, "step `{}`", name),
            Subject::Part(name) => write!(f, "`{}`", name),
        }
    }
}

/// A table with what its messages need.
#[derive(Clone, Copy, Debug)]
pub struct Table<'r, 'i> {
    pub subject: Subject<'r>,
    /// Where a missing key is reported.
    pub span: Span,
    pub inner: &'r DeTable<'i>,
    /// The text inside is broken: what seems missing may only be unread.
    pub damaged: bool,
}

/// A value with its place.
pub type Found<T> = (T, Span);

impl<'r, 'i> Table<'r, 'i> {
    /// A table inside this one.
    pub fn inside(&self, subject: Subject<'r>, span: Span, inner: &'r DeTable<'i>) -> Self {
        Table { subject, span, inner, damaged: self.damaged }
    }

    pub fn key(&self, key: &str) -> Option<(&'r Spanned<DeString<'i>>, &'r Spanned<DeValue<'i>>)> {
        self.inner.get_key_value(key)
    }

    pub fn value(&self, key: &str) -> Option<&'r Spanned<DeValue<'i>>> {
        self.inner.get(key)
    }

    /// Reports every key that is not among `known`.
    pub fn only(&self, known: &[&str], mistakes: &mut Vec<Mistake>) {
        for (key, _) in self.inner.iter() {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                let all = format!("the keys here are {}", list(known));
                let message = format!("{} has no key `{}`", self.subject, name);
                let near = did_you_mean(name, known.iter().copied());
                mistakes.push(Mistake::new(key.span(), message).hint(all).maybe_hint(near));
            }
        }
    }

    pub fn missing(&self, key: &str, hint: &str, mistakes: &mut Vec<Mistake>) {
        if !self.damaged {
            let message = format!("{} has no `{key}`", self.subject);
            mistakes.push(Mistake::new(self.span, message).expected(format!("a key `{key}`")).hint(hint));
        }
    }

    /// The one key of `keys` that is there; none or several are mistakes.
    pub fn exactly_one(
        &self,
        keys: &[&'static str],
        hint: &str,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<&'static str> {
        let mut there = keys.iter().filter(|key| self.inner.contains_key(**key));
        let Some(first) = there.next() else {
            if !self.damaged {
                let message = format!("{} has none of {}", self.subject, list(keys));
                let wanted = format!("exactly one of {}", list(keys));
                mistakes.push(Mistake::new(self.span, message).expected(wanted).hint(hint));
            }
            return None;
        };
        let mut alone = true;
        for other in there {
            alone = false;
            self.exclusive(first, other, mistakes);
        }
        alone.then_some(*first)
    }

    /// Reports two keys that cannot stand together, in the order of the text.
    pub fn exclusive(&self, a: &str, b: &str, mistakes: &mut Vec<Mistake>) {
        let (Some((a_key, _)), Some((b_key, _))) = (self.key(a), self.key(b)) else { return };
        let (first, second) =
            if a_key.span().start < b_key.span().start { (a_key, b_key) } else { (b_key, a_key) };
        let (one, two) = (first.get_ref(), second.get_ref());
        let message = format!("{} has both `{one}` and `{two}`", self.subject);
        let mistake = Mistake::new(second.span(), message).related(first.span(), format!("`{one}` is here"));
        mistakes.push(mistake.hint("keep one of them"));
    }

    pub fn string(&self, key: &str, mistakes: &mut Vec<Mistake>) -> Option<Found<&'r str>> {
        string(key, self.value(key)?, mistakes)
    }

    pub fn required_string(
        &self,
        key: &str,
        hint: &str,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Found<&'r str>> {
        if !self.inner.contains_key(key) {
            self.missing(key, hint, mistakes);
        }
        self.string(key, mistakes)
    }

    pub fn boolean(&self, key: &str, mistakes: &mut Vec<Mistake>) -> Option<bool> {
        let value = self.value(key)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            wrong_type(key, value, "true or false", mistakes);
        }
        found
    }

    /// A whole number within bounds, both included.
    pub fn integer(&self, key: &str, least: u64, most: u64, mistakes: &mut Vec<Mistake>) -> Option<u64> {
        integer(key, self.value(key)?, least, most, mistakes)
    }

    /// A number, rounded once to f32; whole numbers count.
    pub fn number(&self, key: &str, mistakes: &mut Vec<Mistake>) -> Option<Found<f32>> {
        let value = self.value(key)?;
        let number = match value.get_ref() {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().parse().ok(),
            _ => None,
        };
        match number {
            Some(number) => Some((number, value.span().into())),
            None => {
                wrong_type(key, value, "a number", mistakes);
                None
            }
        }
    }
}

pub fn string<'r>(
    what: &str,
    value: &'r Spanned<DeValue<'_>>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Found<&'r str>> {
    match value.get_ref() {
        DeValue::String(text) => Some((text, value.span().into())),
        _ => {
            wrong_type(what, value, "a string", mistakes);
            None
        }
    }
}

pub fn integer(
    what: &str,
    value: &Spanned<DeValue<'_>>,
    least: u64,
    most: u64,
    mistakes: &mut Vec<Mistake>,
) -> Option<u64> {
    let DeValue::Integer(digits) = value.get_ref() else {
        wrong_type(what, value, "a whole number", mistakes);
        return None;
    };
    let number = u64::from_str_radix(digits.as_str(), digits.radix()).ok();
    let number = number.filter(|number| (least..=most).contains(number));
    // An empty span marks a value that could not be read; that was reported.
    if number.is_none() && !value.span().is_empty() {
        let message = format!("`{what}` cannot be {digits}");
        let wanted = format!("a whole number from {least} to {most}");
        mistakes.push(Mistake::new(value.span(), message).expected(wanted));
    }
    number
}

pub fn wrong_type(what: &str, value: &Spanned<DeValue<'_>>, wanted: &str, mistakes: &mut Vec<Mistake>) {
    if value.span().is_empty() {
        return;
    }
    let message = format!("`{}` must be {wanted}, this is {}", what, article(value.get_ref()));
    mistakes.push(Mistake::new(value.span(), message).expected(wanted));
}

/// The type of a value with its article.
pub fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// `a`, `b` and `c`.
pub fn list(names: &[&str]) -> String {
    joined(names, "and")
}

/// `a`, `b` or `c`.
pub fn either(names: &[&str]) -> String {
    joined(names, "or")
}

fn joined(names: &[&str], word: &str) -> String {
    match names {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [most @ .., last] => {
            let most: Vec<String> = most.iter().map(|name| format!("`{name}`")).collect();
            format!("{} {word} `{last}`", most.join(", "))
        }
    }
}
