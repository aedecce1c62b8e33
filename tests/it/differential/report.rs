//! What came of the statements: disagreements with all that is needed to see them again, and counts that
//! show whether the generator asks anything worth asking.

use std::collections::BTreeMap;
use std::fmt;

use super::generator::Statement;
use super::worlds::{Disagreement, Verdict};

/// After this many statements that went wrong a lane stops.
const WRONG_MAX: usize = 10;
/// Characters of an upstream's statement that are shown.
const SENT_SHOWN_MAX: usize = 600;

/// Shares that the generator must reach, in percent.
const ANSWERED_MIN: usize = 85;
const FILLED_MIN: usize = 60;
const FORWARDED_MIN: usize = 50;
/// The share of candidate sub-plans that must be sent.
const SENT_MIN: usize = 60;

/// The counts of one category.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    asked: usize,
    /// The reference answers without an error.
    answered: usize,
    /// With rows.
    filled: usize,
    /// Forwarded where one upstream has all tables under other names.
    forwarded: usize,
}

/// The sum of many verdicts.
#[derive(Default)]
pub struct Report {
    categories: BTreeMap<&'static str, Counts>,
    /// Candidates for sub-plans over two upstreams: `sent`, or why not.
    sub_plans: BTreeMap<String, usize>,
    /// What the reference says where it fails, and how often.
    errors: BTreeMap<String, usize>,
    wrong: Vec<String>,
}

impl Report {
    pub fn add(&mut self, statement: &Statement, verdict: Verdict) {
        let counts = self.categories.entry(statement.category).or_default();
        counts.asked += 1;
        counts.answered += usize::from(verdict.reference_error.is_none());
        counts.filled += usize::from(verdict.reference_error.is_none() && !verdict.is_empty);
        counts.forwarded += usize::from(verdict.is_forwarded);
        for line in &verdict.sub_plans {
            *self.sub_plans.entry(cause_of(line)).or_default() += 1;
        }
        if let Some(error) = &verdict.reference_error {
            let error: String = error.chars().take(150).collect();
            *self.errors.entry(error.replace('\n', " ")).or_default() += 1;
        }
        if !verdict.disagreements.is_empty() {
            self.wrong.push(told(statement, &verdict.disagreements));
        }
    }

    /// Both together.
    pub fn and(mut self, other: Self) -> Self {
        for (category, counts) in other.categories {
            let sum = self.categories.entry(category).or_default();
            sum.asked += counts.asked;
            sum.answered += counts.answered;
            sum.filled += counts.filled;
            sum.forwarded += counts.forwarded;
        }
        for (mine, others) in [(&mut self.sub_plans, other.sub_plans), (&mut self.errors, other.errors)] {
            for (what, count) in others {
                *mine.entry(what).or_default() += count;
            }
        }
        self.wrong.extend(other.wrong);
        self
    }

    pub fn is_enough(&self) -> bool {
        self.wrong.len() >= WRONG_MAX
    }

    pub fn assert_no_disagreement(&self) {
        let wrong = &self.wrong;
        assert!(wrong.is_empty(), "{} statements went wrong:\n\n{}", wrong.len(), wrong.join("\n\n"));
    }

    /// The statements were mostly answered, mostly with rows, in every category; most were forwarded where
    /// they could be, and most sub-plans were sent.
    pub fn assert_worth_asking(&self) {
        let sum = self.sum();
        let at_least = |what: &str, part: usize, whole: usize, percent: usize| {
            assert!(part * 100 >= whole * percent, "{part} of {whole} {what}, expected {percent} %\n{self}");
        };
        at_least("are answered by the reference", sum.answered, sum.asked, ANSWERED_MIN);
        at_least("have rows", sum.filled, sum.asked, FILLED_MIN);
        at_least("are forwarded under other names", sum.forwarded, sum.asked, FORWARDED_MIN);
        for (category, counts) in &self.categories {
            assert!(counts.filled > 0, "no statement about {category} has rows\n{self}");
        }
        // Not every build cuts plans into sub-plans; one that does says so in EXPLAIN.
        let candidates = self.sub_plans.values().sum();
        if candidates > 0 {
            let sent = self.sub_plans.get("sent").copied().unwrap_or_default();
            at_least("sub-plans are sent", sent, candidates, SENT_MIN);
        }
    }

    fn sum(&self) -> Counts {
        self.categories.values().fold(Counts::default(), |sum, counts| Counts {
            asked: sum.asked + counts.asked,
            answered: sum.answered + counts.answered,
            filled: sum.filled + counts.filled,
            forwarded: sum.forwarded + counts.forwarded,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<24}{:>7}{:>10}{:>10}{:>11}",
            "category", "asked", "answered", "with rows", "forwarded"
        )?;
        let sum = self.sum();
        for (name, counts) in self.categories.iter().chain([(&"all", &sum)]) {
            let Counts { asked, answered, filled, forwarded } = counts;
            writeln!(f, "{name:<24}{asked:>7}{answered:>10}{filled:>10}{forwarded:>11}")?;
        }
        for (error, count) in &self.errors {
            writeln!(f, "{count:>7} the reference fails: {error}")?;
        }
        for (cause, count) in &self.sub_plans {
            writeln!(f, "{count:>7} sub-plans over two upstreams: {cause}")?;
        }
        Ok(())
    }
}

/// `sent: WHAT` is `sent`; `kept: WHAT: CAUSE` is its cause, without its own details.
fn cause_of(line: &str) -> String {
    let mut parts = line.trim().splitn(4, ": ");
    match (parts.next(), parts.next(), parts.next()) {
        (Some("sent"), ..) => "sent".to_owned(),
        (Some("kept"), Some(_), Some(cause)) => format!("kept, {cause}"),
        _ => format!("cannot be read: {line}"),
    }
}

fn told(statement: &Statement, disagreements: &[Disagreement]) -> String {
    let Statement { seed, category, sql, parameters, .. } = statement;
    let mut told = format!(
        "seed {seed}, {category}: SIDEWING_SEED={seed} cargo test --test it differential::every_tier\n{sql}\nparameters: {parameters:?}"
    );
    for Disagreement { tier, what, sent } in disagreements {
        told.push_str(&format!("\n[{tier}] {what}"));
        for sql in sent {
            let sql: String = sql.chars().take(SENT_SHOWN_MAX).collect();
            told.push_str(&format!("\n  sent: {sql}"));
        }
    }
    told
}

#[test]
fn lines_about_sub_plans_are_read() {
    assert_eq!(cause_of("sent: Join of t, u"), "sent");
    assert_eq!(cause_of("kept: Join of t: does not plan back: Filter"), "kept, does not plan back");
    assert_eq!(cause_of("what"), "cannot be read: what");
}
