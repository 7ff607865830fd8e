//! Sets of system call arguments, and exact algebra on them: what two filters allow together can be said, and what neither
//! does.
//!
//! Owns: sets as trees that ask for one argument after the other, the same tree for the same set, and the conditions that
//! rules say them with. Pure. Must not: know a system call, or the bits of a number.

use serde_json::{Value, json};

use super::values::{Budget, Values};
pub use super::values::{Compare, Cut, TooFine};

/// Arguments that a filter can look at.
pub const ARGUMENTS: usize = 6;
/// Most rules that say one set; engines' own take a few dozen.
const MAX_RULES: usize = 512;

/// A set of arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    tree: Tree,
    cut: Cut,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Tree {
    Nothing,
    Everything,
    /// What each value of an argument leaves to be asked of the later ones. Every value is in one part, and each part's rest
    /// is another.
    Ask {
        argument: usize,
        parts: Vec<(Values, Tree)>,
    },
}

impl Tree {
    fn ask(argument: usize, mut parts: Vec<(Values, Tree)>, budget: &mut Budget) -> Result<Tree, TooFine> {
        parts.sort_by(|(_, a), (_, b)| a.cmp(b));
        let mut merged: Vec<(Values, Tree)> = Vec::new();
        for (values, rest) in parts {
            match merged.last_mut() {
                Some((known, same)) if *same == rest => *known = known.or(&values, budget)?,
                _ => merged.push((values, rest)),
            }
        }
        if merged.len() > 1 {
            return Ok(Tree::Ask { argument, parts: merged });
        }
        Ok(merged.pop().map_or(Tree::Nothing, |(_, rest)| rest))
    }

    fn and(&self, other: &Tree, budget: &mut Budget) -> Result<Tree, TooFine> {
        budget.spend(1)?;
        match (self, other) {
            (Tree::Nothing, _) | (_, Tree::Nothing) => Ok(Tree::Nothing),
            (Tree::Everything, set) | (set, Tree::Everything) => {
                budget.spend(set.nodes())?;
                Ok(set.clone())
            }
            (Tree::Ask { argument: a, parts }, Tree::Ask { argument: b, parts: others }) => {
                let mut both = Vec::new();
                if a != b {
                    let (first, parts, later) = if a < b { (a, parts, other) } else { (b, others, self) };
                    for (values, rest) in parts {
                        both.push((values.clone(), rest.and(later, budget)?));
                    }
                    return Tree::ask(*first, both, budget);
                }
                for (values, rest) in parts {
                    for (other_values, other_rest) in others {
                        let shared = values.and(other_values, budget)?;
                        if shared != Values::Nothing {
                            both.push((shared, rest.and(other_rest, budget)?));
                        }
                    }
                }
                Tree::ask(*a, both, budget)
            }
        }
    }

    fn nodes(&self) -> usize {
        match self {
            Tree::Nothing | Tree::Everything => 1,
            Tree::Ask { parts, .. } => {
                1 + parts.iter().map(|(values, rest)| values.nodes() + rest.nodes()).sum::<usize>()
            }
        }
    }

    fn not(&self) -> Tree {
        match self {
            Tree::Nothing => Tree::Everything,
            Tree::Everything => Tree::Nothing,
            Tree::Ask { argument, parts } => {
                let mut parts: Vec<_> = parts.iter().map(|(values, rest)| (values.clone(), rest.not())).collect();
                parts.sort_by(|(_, a), (_, b)| a.cmp(b));
                Tree::Ask { argument: *argument, parts }
            }
        }
    }

    fn rules(&self, cut: Cut) -> Result<Vec<Vec<Condition>>, TooFine> {
        let mut rules = Vec::new();
        match self {
            Tree::Nothing => (),
            Tree::Everything => rules.push(Vec::new()),
            Tree::Ask { argument, parts } => {
                for (values, rest) in parts.iter().filter(|(_, rest)| *rest != Tree::Nothing) {
                    let rest = rest.rules(cut)?;
                    for is in values.comparisons(cut)? {
                        let condition = Condition { argument: *argument, is };
                        rules.extend(rest.iter().map(|rule| [&[condition], rule.as_slice()].concat()));
                        if rules.len() > MAX_RULES {
                            return Err(TooFine);
                        }
                    }
                }
            }
        }
        Ok(rules)
    }
}

impl Region {
    /// Whatever the arguments.
    pub fn all(cut: Cut) -> Region {
        Region { tree: Tree::Everything, cut }
    }

    /// Nothing.
    pub fn none(cut: Cut) -> Region {
        Region { tree: Tree::Nothing, cut }
    }

    fn of(cut: Cut, argument: usize, values: Values) -> Region {
        let others = values.not();
        let tree = match values {
            Values::Nothing => Tree::Nothing,
            Values::Everything => Tree::Everything,
            values => Tree::Ask { argument, parts: vec![(others, Tree::Nothing), (values, Tree::Everything)] },
        };
        Region { tree, cut }
    }

    /// Where an argument, masked, is a value.
    pub fn masked(cut: Cut, argument: usize, mask: u64, value: u64) -> Region {
        Region::of(cut, argument, Values::masked(cut, mask, value))
    }

    /// Where an argument is a value.
    pub fn equal(cut: Cut, argument: usize, value: u64) -> Region {
        Region::masked(cut, argument, u64::MAX, value)
    }

    /// Where an argument is greater than a value.
    ///
    /// # Errors
    /// When it takes too much.
    pub fn greater(cut: Cut, argument: usize, value: u64) -> Result<Region, TooFine> {
        Ok(Region::of(cut, argument, Values::greater(cut, value)?))
    }

    /// Where an argument is a value or greater.
    ///
    /// # Errors
    /// When it takes too much.
    pub fn at_least(cut: Cut, argument: usize, value: u64) -> Result<Region, TooFine> {
        Ok(Region::of(cut, argument, Values::at_least(cut, value)?))
    }

    /// No argument is in it.
    pub fn is_empty(&self) -> bool {
        self.tree == Tree::Nothing
    }

    /// All arguments are in it.
    pub fn is_all(&self) -> bool {
        self.tree == Tree::Everything
    }

    /// In both.
    ///
    /// # Errors
    /// When it takes too much.
    pub fn and(&self, other: &Region) -> Result<Region, TooFine> {
        Ok(Region { tree: self.tree.and(&other.tree, &mut Budget::new())?, cut: self.cut })
    }

    /// All others.
    pub fn not(&self) -> Region {
        Region { tree: self.tree.not(), cut: self.cut }
    }

    /// In this, and not in the other.
    ///
    /// # Errors
    /// When it takes too much.
    pub fn minus(&self, other: &Region) -> Result<Region, TooFine> {
        self.and(&other.not())
    }

    /// In either.
    ///
    /// # Errors
    /// When it takes too much.
    pub fn or(&self, other: &Region) -> Result<Region, TooFine> {
        Ok(self.not().and(&other.not())?.not())
    }

    /// The set as the argument lists of rules, each with at most one condition for an argument: runtimes take two conditions
    /// on one argument as either. No two rules have an argument in common. One empty list is everything.
    ///
    /// # Errors
    /// When it takes too many.
    pub fn rules(&self) -> Result<Vec<Vec<Condition>>, TooFine> {
        self.tree.rules(self.cut)
    }
}

/// One condition of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, from 0.
    pub argument: usize,
    /// How it is compared.
    pub is: Compare,
}

impl Condition {
    /// As in `linux.seccomp.syscalls[].args`.
    pub fn to_json(self) -> Value {
        let (value, two, op) = match self.is {
            Compare::Equal(value) => (value, 0, "SCMP_CMP_EQ"),
            Compare::Not(value) => (value, 0, "SCMP_CMP_NE"),
            Compare::AtLeast(value) => (value, 0, "SCMP_CMP_GE"),
            Compare::Below(value) => (value, 0, "SCMP_CMP_LT"),
            Compare::Masked { mask, value } => (mask, value, "SCMP_CMP_MASKED_EQ"),
        };
        let mut condition = json!({"index": self.argument, "value": value, "op": op});
        if let Compare::Masked { .. } = self.is {
            condition["valueTwo"] = json!(two);
        }
        condition
    }

    /// Whether no argument of 32 bits fits: the library drops the upper half there, and would make of it what does.
    pub fn is_wide(self) -> bool {
        match self.is {
            Compare::Equal(value) | Compare::AtLeast(value) | Compare::Masked { value, .. } => value >> 32 != 0,
            Compare::Not(_) | Compare::Below(_) => false,
        }
    }
}
