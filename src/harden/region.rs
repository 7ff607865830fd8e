//! Sets of system call arguments, and exact algebra on them: what two filters allow together can be said, and what neither
//! does.
//!
//! Owns: sets as lists of disjoint cubes (which bits of which argument are looked at, and what they must be), and the
//! conditions that a rule says them with. Pure. Must not: know a system call.

use serde_json::{Value, json};

/// Arguments that a filter can look at.
pub const ARGUMENTS: usize = 6;
/// Most cubes of one set: filters that need more are not written by people, and would not fit a program.
const MAX_CUBES: usize = 1024;

/// Arguments of which some bits are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cube {
    mask: [u64; ARGUMENTS],
    value: [u64; ARGUMENTS],
}

/// Which bits a set is cut along first: what it comes to is the same, how many pieces that takes is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The highest ones: right for numbers that are compared as a whole.
    HighFirst,
    /// The lower half's, for numbers of which the kernel takes the lower half only.
    LowHalfFirst,
}

impl Cut {
    /// The bit to cut along, of those that are open.
    fn next(self, open: u64) -> u64 {
        let low = open & 0xFFFF_FFFF;
        let among = if self == Cut::LowHalfFirst && low != 0 { low } else { open };
        1 << (63 - among.leading_zeros())
    }
}

/// A set of arguments. Its cubes share none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    cubes: Vec<Cube>,
    cut: Cut,
}

/// A set that takes too many cubes to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooFine;

impl Cube {
    const ALL: Cube = Cube { mask: [0; ARGUMENTS], value: [0; ARGUMENTS] };

    fn masked(argument: usize, mask: u64, value: u64) -> Cube {
        let mut cube = Cube::ALL;
        cube.mask[argument] = mask;
        cube.value[argument] = value & mask;
        cube
    }

    fn and(&self, other: &Cube) -> Option<Cube> {
        let mut both = *self;
        for i in 0..ARGUMENTS {
            if (self.value[i] ^ other.value[i]) & self.mask[i] & other.mask[i] != 0 {
                return None;
            }
            both.mask[i] |= other.mask[i];
            both.value[i] |= other.value[i];
        }
        Some(both)
    }

    /// What is in this and not in the other: numbers that begin as the other's, in the order of the cut, and go on otherwise.
    fn minus(&self, other: &Cube, cut: Cut, into: &mut Vec<Cube>) {
        if self.and(other).is_none() {
            into.push(*self);
            return;
        }
        let mut rest = *self;
        for i in 0..ARGUMENTS {
            let mut open = other.mask[i] & !self.mask[i];
            while open != 0 {
                let bit = cut.next(open);
                open &= !bit;
                let mut piece = rest;
                piece.mask[i] |= bit;
                piece.value[i] |= !other.value[i] & bit;
                into.push(piece);
                rest.mask[i] |= bit;
                rest.value[i] |= other.value[i] & bit;
            }
        }
    }
}

impl Region {
    /// Whatever the arguments.
    pub fn all(cut: Cut) -> Region {
        Region { cubes: vec![Cube::ALL], cut }
    }

    /// Nothing.
    pub fn none(cut: Cut) -> Region {
        Region { cubes: Vec::new(), cut }
    }

    /// Where an argument, masked, is a value.
    pub fn masked(cut: Cut, argument: usize, mask: u64, value: u64) -> Region {
        Region { cubes: vec![Cube::masked(argument, mask, value)], cut }
    }

    /// Where an argument is a value.
    pub fn equal(cut: Cut, argument: usize, value: u64) -> Region {
        Region::masked(cut, argument, u64::MAX, value)
    }

    /// Where an argument is greater than a value.
    pub fn greater(cut: Cut, argument: usize, value: u64) -> Region {
        let above = (0..64).rev().map(|i| 1u64 << i).filter(|bit| value & bit == 0);
        Region { cubes: above.map(|bit| Cube::masked(argument, !(bit - 1), value | bit)).collect(), cut }
    }

    /// No argument is in it.
    pub fn is_empty(&self) -> bool {
        self.cubes.is_empty()
    }

    /// All arguments are in it.
    pub fn is_all(&self) -> bool {
        self.cubes.contains(&Cube::ALL)
    }

    /// In both.
    ///
    /// # Errors
    /// When it takes too many cubes.
    pub fn and(&self, other: &Region) -> Result<Region, TooFine> {
        self.bounded(self.cubes.iter().flat_map(|a| other.cubes.iter().filter_map(move |b| a.and(b))))
    }

    /// In this, and not in the other.
    ///
    /// # Errors
    /// When it takes too many cubes.
    pub fn minus(&self, other: &Region) -> Result<Region, TooFine> {
        let mut rest = self.clone();
        for taken in &other.cubes {
            let mut left = Vec::new();
            rest.cubes.iter().for_each(|cube| cube.minus(taken, self.cut, &mut left));
            rest = self.bounded(left.into_iter())?;
        }
        Ok(rest)
    }

    /// In either.
    ///
    /// # Errors
    /// When it takes too many cubes.
    pub fn or(&self, other: &Region) -> Result<Region, TooFine> {
        let more = other.minus(self)?;
        self.bounded(self.cubes.iter().copied().chain(more.cubes))
    }

    fn bounded(&self, cubes: impl Iterator<Item = Cube>) -> Result<Region, TooFine> {
        let cubes: Vec<Cube> = cubes.take(MAX_CUBES + 1).collect();
        if cubes.len() > MAX_CUBES { Err(TooFine) } else { Ok(Region { cubes, cut: self.cut }) }
    }

    /// The set as the argument lists of rules, each with at most one condition for an argument: runtimes take two conditions
    /// on one argument as either. No two rules have an argument in common.
    pub fn rules(&self) -> Vec<Vec<Condition>> {
        let mut left = self.cubes.clone();
        let mut rules = Vec::new();
        // What differs in one argument only, in each of its beginnings, is one comparison.
        while let Some(first) = left.first().copied() {
            let runs = (0..ARGUMENTS).filter_map(|argument| run(&left, &first, argument));
            match runs.max_by_key(|(members, _)| members.len()) {
                Some((members, condition)) => {
                    let mut others = first;
                    (others.mask[condition.argument], others.value[condition.argument]) = (0, 0);
                    let mut rule = conditions(&others);
                    rule.push(condition);
                    rule.sort_by_key(|condition| condition.argument);
                    rules.push(rule);
                    left.retain(|cube| !members.contains(cube));
                }
                None => {
                    rules.push(conditions(&first));
                    left.remove(0);
                }
            }
        }
        rules
    }
}

/// How one argument is compared in a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// Is the value.
    Equal(u64),
    /// Is not the value.
    Not(u64),
    /// Is the value or more.
    AtLeast(u64),
    /// Is the value once masked.
    Masked {
        /// Bits that are looked at.
        mask: u64,
        /// What they are.
        value: u64,
    },
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
            Compare::Masked { mask, value } => (mask, value, "SCMP_CMP_MASKED_EQ"),
        };
        let mut condition = json!({"index": self.argument, "value": value, "op": op});
        if let Compare::Masked { .. } = self.is {
            condition["valueTwo"] = json!(two);
        }
        condition
    }
}

fn conditions(cube: &Cube) -> Vec<Condition> {
    let looked_at = (0..ARGUMENTS).filter(|&i| cube.mask[i] != 0);
    let is = |i: usize| match cube.mask[i] {
        u64::MAX => Compare::Equal(cube.value[i]),
        mask => Compare::Masked { mask, value: cube.value[i] },
    };
    looked_at.map(|argument| Condition { argument, is: is(argument) }).collect()
}

/// The cubes that differ from `like` in one argument only and are together all values but one, or all from a power of two on.
fn run(cubes: &[Cube], like: &Cube, argument: usize) -> Option<(Vec<Cube>, Condition)> {
    let same = |cube: &Cube| {
        (0..ARGUMENTS).all(|i| i == argument || cube.mask[i] == like.mask[i] && cube.value[i] == like.value[i])
    };
    let all: Vec<&Cube> = cubes.iter().filter(|cube| same(cube)).collect();
    let (mut members, mut but, mut power) = (Vec::new(), 0u64, None);
    for at in (0..64).rev() {
        let mask = u64::MAX << at;
        let next = all.iter().find(|c| c.mask[argument] == mask && (c.value[argument] ^ but) >> at == 1);
        // The value left out has a 1 here where the piece that goes on otherwise has a 0.
        let next = next.or_else(|| {
            let one = but | 1 << at;
            all.iter().find(|c| c.mask[argument] == mask && (c.value[argument] ^ one) >> at == 1)
        });
        let Some(piece) = next else { break };
        members.push(**piece);
        but |= !piece.value[argument] & 1 << at;
        if but == 0 {
            power = Some((members.len(), 1u64 << at));
        }
    }
    let (count, is) = match (members.len(), power) {
        (64, _) => (64, Compare::Not(but)),
        (_, Some((count, from))) if count > 1 => (count, Compare::AtLeast(from)),
        _ => return None,
    };
    members.truncate(count);
    members.contains(like).then_some((members, Condition { argument, is }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn has(region: &Region, arguments: &[u64; ARGUMENTS]) -> bool {
        let inside = |cube: &&Cube| (0..ARGUMENTS).all(|i| arguments[i] & cube.mask[i] == cube.value[i]);
        let count = region.cubes.iter().filter(inside).count();
        assert!(count <= 1, "cubes share arguments");
        count == 1
    }

    fn fit(rules: &[Vec<Condition>], arguments: &[u64; ARGUMENTS]) -> usize {
        let fits = |c: &Condition| match c.is {
            Compare::Equal(value) => arguments[c.argument] == value,
            Compare::Not(value) => arguments[c.argument] != value,
            Compare::AtLeast(value) => arguments[c.argument] >= value,
            Compare::Masked { mask, value } => arguments[c.argument] & mask == value,
        };
        rules.iter().filter(|rule| rule.iter().all(fits)).count()
    }

    fn small() -> impl Strategy<Value = u64> {
        prop_oneof![0u64..8, Just(u64::MAX), Just(0xFFFF_FFFF), Just(1 << 40)]
    }

    fn region() -> impl Strategy<Value = (Region, Vec<(u8, usize, u64, u64)>)> {
        let parts = proptest::collection::vec((0u8..4, 0usize..3, small(), small()), 0..4);
        let cut = prop_oneof![Just(Cut::HighFirst), Just(Cut::LowHalfFirst)];
        (parts, cut).prop_filter_map("too fine", |(parts, cut)| {
            let mut sets = parts.iter().map(|&(kind, argument, a, b)| match kind {
                0 => Region::equal(cut, argument, a),
                1 => Region::masked(cut, argument, a, b & a),
                2 => Region::greater(cut, argument, a),
                _ => Region::all(cut).minus(&Region::equal(cut, argument, a)).unwrap(),
            });
            let all = sets.try_fold(Region::none(cut), |all, one| all.or(&one)).ok()?;
            Some((all, parts))
        })
    }

    fn in_parts(parts: &[(u8, usize, u64, u64)], arguments: &[u64; ARGUMENTS]) -> bool {
        parts.iter().any(|&(kind, i, a, b)| match kind {
            0 => arguments[i] == a,
            1 => arguments[i] & a == b & a,
            2 => arguments[i] > a,
            _ => arguments[i] != a,
        })
    }

    proptest! {
        #[test]
        fn sets_hold_what_they_say_and_so_do_their_rules_once(
            (a, of_a) in region(), (b, of_b) in region(), at in [small(), small(), small()],
        ) {
            let at = [at[0], at[1], at[2], 0, 0, 0];
            let (in_a, in_b) = (in_parts(&of_a, &at), in_parts(&of_b, &at));
            prop_assert_eq!(has(&a, &at), in_a);
            let (Ok(both), Ok(left)) = (a.and(&b), a.minus(&b)) else { return Ok(()) };
            prop_assert_eq!(has(&both, &at), in_a && in_b);
            prop_assert_eq!(has(&left, &at), in_a && !in_b);
            for (set, inside) in [(&a, in_a), (&both, in_a && in_b), (&left, in_a && !in_b)] {
                prop_assert_eq!(fit(&set.rules(), &at), usize::from(inside));
            }
        }
    }

    #[test]
    fn what_people_write_stays_short() {
        let cut = Cut::HighFirst;
        let all_but_nine = Region::all(cut).minus(&Region::equal(cut, 2, 9)).unwrap();
        assert_eq!(all_but_nine.rules(), [[Condition { argument: 2, is: Compare::Not(9) }]]);
        let families =
            [1, 2, 10, 16].into_iter().fold(Region::none(cut), |all, f| all.or(&Region::equal(cut, 0, f)).unwrap());
        let others = Region::all(cut).minus(&families).unwrap().rules();
        assert!(
            others.len() < 12 && others.contains(&vec![Condition { argument: 0, is: Compare::AtLeast(32) }]),
            "{others:?}"
        );
        assert!(Region::all(cut).minus(&Region::all(cut)).unwrap().is_empty());
    }
    #[test]
    fn a_command_of_32_bits_that_one_compares_whole_and_another_by_half_stays_short() {
        let cut = Cut::LowHalfFirst;
        let not_whole = Region::all(cut).minus(&Region::equal(cut, 1, 0x5413)).unwrap();
        let not_half = Region::all(cut).minus(&Region::masked(cut, 1, 0xFFFF_FFFF, 0x5412)).unwrap();
        assert!(not_whole.and(&not_half).unwrap().rules().len() < 100);
    }
}
