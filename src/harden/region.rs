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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fits(condition: &Condition, arguments: &[u64; 3]) -> bool {
        super::super::values::tests::fits(&condition.is, arguments[condition.argument])
    }

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![0u64..12, Just(16), Just(40), Just(0x7E02_0000), Just(1 << 32 | 2)]
    }

    /// Rules of up to two conditions, and whether arguments fit one.
    type Parts = Vec<Vec<(u8, usize, u64)>>;

    fn parts() -> impl Strategy<Value = Parts> {
        let condition = (0u8..4, 0usize..3, number());
        proptest::collection::vec(proptest::collection::vec(condition, 1..3), 0..4)
    }

    fn region(cut: Cut, parts: &Parts) -> Result<Region, TooFine> {
        let one = |&(kind, argument, value): &(u8, usize, u64)| match kind {
            0 => Ok(Region::equal(cut, argument, value)),
            1 => Ok(Region::equal(cut, argument, value).not()),
            2 => Region::greater(cut, argument, value),
            _ => Ok(Region::masked(cut, argument, value, value)),
        };
        let rule = |rule: &Vec<(u8, usize, u64)>| rule.iter().try_fold(Region::all(cut), |all, it| all.and(&one(it)?));
        parts.iter().try_fold(Region::none(cut), |all, it| all.or(&rule(it)?))
    }

    fn is_in(parts: &Parts, arguments: &[u64; 3]) -> bool {
        let fits = |&(kind, i, value): &(u8, usize, u64)| match kind {
            0 => arguments[i] == value,
            1 => arguments[i] != value,
            2 => arguments[i] > value,
            _ => arguments[i] & value == value,
        };
        parts.iter().any(|rule| rule.iter().all(fits))
    }

    proptest! {
        #[test]
        fn sets_hold_what_they_say_and_each_argument_fits_one_rule_of_theirs(a in parts(), b in parts(), at in [number(), number(), number()]) {
            let cut = Cut::HighFirst;
            // Masks and whole numbers in three arguments may take too much: nothing is said of them then.
            let (Ok(set), Ok(other)) = (region(cut, &a), region(cut, &b)) else { return Ok(()) };
            let (in_a, in_b) = (is_in(&a, &at), is_in(&b, &at));
            for (set, inside) in [
                (set.and(&other), in_a && in_b),
                (set.minus(&other), in_a && !in_b),
                (set.or(&other), in_a || in_b),
            ] {
                let Ok(rules) = set.and_then(|set| set.rules()) else { continue };
                prop_assert!(rules.iter().all(|rule| rule.windows(2).all(|two| two[0].argument < two[1].argument)));
                let count = rules.iter().filter(|rule| rule.iter().all(|condition| fits(condition, &at))).count();
                prop_assert_eq!(count, usize::from(inside));
            }
            for (same, want) in [(set.minus(&set), Region::none(cut)), (set.or(&set.not()), Region::all(cut))] {
                prop_assert!(same.is_err() || same == Ok(want));
            }
        }
    }
}
