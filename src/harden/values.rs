//! Sets of numbers that one argument of a system call may be, with exact algebra on them, and the fewest comparisons that say
//! one.
//!
//! Owns: sets as trees that ask for one bit after the other, the same tree for the same set. Pure. Must not: know that there
//! are several arguments.

/// A set that takes too much to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooFine;

/// What one operation may still come to, in nodes: filters that need more are not written by people.
#[derive(Debug)]
pub struct Budget(usize);

impl Budget {
    /// Two hundred numbers that have nothing in common, and their likes.
    pub fn new() -> Budget {
        Budget(1 << 14)
    }

    /// Takes nodes off.
    ///
    /// # Errors
    /// When there are not as many left.
    pub fn spend(&mut self, nodes: usize) -> Result<(), TooFine> {
        self.0 = self.0.checked_sub(nodes).ok_or(TooFine)?;
        Ok(())
    }
}

/// Which bits are asked for first: what a set comes to is the same, how many pieces that takes is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The highest ones: right for numbers that are compared as a whole.
    HighFirst,
    /// The lower half's, for numbers of which the kernel takes the lower half only.
    LowHalfFirst,
}

/// Bits of an argument.
const BITS: u8 = 64;

impl Cut {
    /// The bit that is asked for at a place in the order.
    fn bit(self, at: u8) -> u64 {
        let index = match self {
            Cut::LowHalfFirst if at < BITS / 2 => BITS / 2 - 1 - at,
            Cut::LowHalfFirst => BITS + BITS / 2 - 1 - at,
            Cut::HighFirst => BITS - 1 - at,
        };
        1 << index
    }
}

/// A set of numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Values {
    /// None at all.
    Nothing,
    /// Whatever they are.
    Everything,
    /// Those of `zero` where the bit is not set, and those of `one` where it is; the two differ.
    Split {
        /// Which bit, by its place in the order; those inside have later ones.
        at: u8,
        /// Where it is 0.
        zero: Box<Values>,
        /// Where it is 1.
        one: Box<Values>,
    },
}

/// How an argument is compared in a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// Is the value.
    Equal(u64),
    /// Is not the value.
    Not(u64),
    /// Is the value or more.
    AtLeast(u64),
    /// Is less than the value.
    Below(u64),
    /// Is the value once masked.
    Masked {
        /// Bits that are looked at.
        mask: u64,
        /// What they are.
        value: u64,
    },
}

impl Values {
    fn split(at: u8, zero: Values, one: Values) -> Values {
        if zero == one { zero } else { Values::Split { at, zero: zero.into(), one: one.into() } }
    }

    /// Numbers that are a value once masked.
    pub fn masked(cut: Cut, mask: u64, value: u64) -> Values {
        (0..BITS).rev().fold(Values::Everything, |rest, at| match cut.bit(at) {
            bit if mask & bit == 0 => rest,
            bit if value & bit == 0 => Values::split(at, rest, Values::Nothing),
            _ => Values::split(at, Values::Nothing, rest),
        })
    }

    /// Numbers that are greater than a value.
    ///
    /// # Errors
    /// When that takes too much in this order.
    pub fn greater(cut: Cut, value: u64) -> Result<Values, TooFine> {
        let above = (0..BITS).map(|at| 1u64 << at).filter(|bit| value & bit == 0);
        above
            .map(|bit| Values::masked(cut, !(bit - 1), value | bit))
            .try_fold(Values::Nothing, |all, one| all.or(&one, &mut Budget::new()))
    }

    /// In both.
    ///
    /// # Errors
    /// When it takes more than the budget.
    pub fn and(&self, other: &Values, budget: &mut Budget) -> Result<Values, TooFine> {
        budget.spend(1)?;
        Ok(match (self, other) {
            (Values::Nothing, _) | (_, Values::Nothing) => Values::Nothing,
            (Values::Everything, set) | (set, Values::Everything) => {
                budget.spend(set.nodes())?;
                set.clone()
            }
            (Values::Split { at, .. }, Values::Split { at: other_at, .. }) => {
                let at = *at.min(other_at);
                let ((a, b), (c, d)) = (self.halves(at), other.halves(at));
                Values::split(at, a.and(c, budget)?, b.and(d, budget)?)
            }
        })
    }

    /// In either.
    ///
    /// # Errors
    /// When it takes more than the budget.
    pub fn or(&self, other: &Values, budget: &mut Budget) -> Result<Values, TooFine> {
        Ok(self.not().and(&other.not(), budget)?.not())
    }

    /// All others.
    pub fn not(&self) -> Values {
        match self {
            Values::Nothing => Values::Everything,
            Values::Everything => Values::Nothing,
            Values::Split { at, zero, one } => {
                Values::Split { at: *at, zero: zero.not().into(), one: one.not().into() }
            }
        }
    }

    /// How much it takes to say.
    pub fn nodes(&self) -> usize {
        match self {
            Values::Nothing | Values::Everything => 1,
            Values::Split { zero, one, .. } => 1 + zero.nodes() + one.nodes(),
        }
    }

    /// Those where the bit at a place is 0, and those where it is 1. No earlier bit is asked for.
    fn halves(&self, place: u8) -> (&Values, &Values) {
        match self {
            Values::Split { at, zero, one } if *at == place => (zero, one),
            whole => (whole, whole),
        }
    }

    /// The set as comparisons, of which each number in it fits exactly one.
    ///
    /// # Errors
    /// When it takes too many.
    pub fn comparisons(&self, cut: Cut) -> Result<Vec<Compare>, TooFine> {
        if let [Compare::Equal(value)] = self.not().cubes(cut)[..] {
            return Ok(vec![Compare::Not(value)]);
        }
        let mut best = self.cubes(cut);
        if cut == Cut::HighFirst {
            let (low, high) = (self.edge(0, false), self.edge(0, true));
            for (low, high) in [(None, high), (low, high), (low, None)] {
                let (mut rest, mut said) = (self.clone(), Vec::new());
                if let Some(value) = high {
                    let least = Values::at_least(cut, value)?;
                    rest = rest.and(&least.not(), &mut Budget::new())?;
                    said.push(Compare::AtLeast(value));
                }
                if let Some(value) = low.and_then(|value| value.checked_add(1)) {
                    rest = rest.and(&Values::at_least(cut, value)?, &mut Budget::new())?;
                    said.push(Compare::Below(value));
                }
                said.extend(rest.cubes(cut));
                if said.len() < best.len() {
                    best = said;
                }
            }
        }
        Ok(best)
    }

    /// Numbers that are a value or greater.
    ///
    /// # Errors
    /// As [`Values::greater`].
    pub fn at_least(cut: Cut, value: u64) -> Result<Values, TooFine> {
        value.checked_sub(1).map_or(Ok(Values::Everything), |less| Values::greater(cut, less))
    }

    /// The paths of the tree that end inside, each as one comparison.
    fn cubes(&self, cut: Cut) -> Vec<Compare> {
        let mut all = Vec::new();
        self.walk(cut, (0, 0), &mut all);
        all
    }

    fn walk(&self, cut: Cut, (mask, value): (u64, u64), into: &mut Vec<Compare>) {
        match self {
            Values::Nothing => (),
            Values::Everything if mask == u64::MAX => into.push(Compare::Equal(value)),
            Values::Everything => into.push(Compare::Masked { mask, value }),
            Values::Split { at, zero, one } => {
                let bit = cut.bit(*at);
                zero.walk(cut, (mask | bit, value), into);
                one.walk(cut, (mask | bit, value | bit), into);
            }
        }
    }

    /// The farthest number to which all numbers from the highest (`top`) or the lowest one on are in the set, as far as bits
    /// from a place on say it. The set is cut high bits first.
    fn edge(&self, at: u8, top: bool) -> Option<u64> {
        match self {
            Values::Nothing => None,
            Values::Everything if top => Some(0),
            Values::Everything => Some(u64::MAX.checked_shr(at.into()).unwrap_or(0)),
            Values::Split { .. } => {
                let bit = Cut::HighFirst.bit(at);
                let (zero, one) = self.halves(at);
                let (near, far, near_bit, far_bit) = if top { (one, zero, bit, 0) } else { (zero, one, 0, bit) };
                if *near != Values::Everything {
                    return near.edge(at + 1, top).map(|rest| near_bit | rest);
                }
                // All of the near half, and of the far one what is next to it.
                let next = far.edge(at + 1, top).map(|rest| far_bit | rest);
                next.or(Some(if top { bit } else { bit - 1 }))
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::harden) fn fits(is: &Compare, number: u64) -> bool {
        match *is {
            Compare::Equal(value) => number == value,
            Compare::Not(value) => number != value,
            Compare::AtLeast(value) => number >= value,
            Compare::Below(value) => number < value,
            Compare::Masked { mask, value } => number & mask == value,
        }
    }

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![0u64..24, Just(u64::MAX), Just(u64::MAX - 1), Just(0xFFFF_FFFF), Just(1 << 40), Just(1 << 32 | 2)]
    }

    proptest! {
        #[test]
        fn each_number_of_a_set_and_no_other_fits_exactly_one_of_its_comparisons(
            parts in proptest::collection::vec((0u8..3, number(), number(), any::<bool>()), 0..6), at in number(), low: bool,
        ) {
            let cut = if low { Cut::LowHalfFirst } else { Cut::HighFirst };
            let (mut set, mut inside) = (Values::Nothing, false);
            for (kind, a, b, out) in parts {
                let (part, is) = match kind {
                    0 => (Values::masked(cut, u64::MAX, a), at == a),
                    1 => (Values::masked(cut, a, b & a), at & a == b & a),
                    _ => (Values::greater(cut, a).unwrap(), at > a),
                };
                let budget = &mut Budget::new();
                let (next, is) = if out {
                    (set.and(&part.not(), budget), inside && !is)
                } else {
                    (set.or(&part, budget), inside || is)
                };
                // Half numbers and whole ones in many pieces may take too much: nothing is said of them then.
                let Ok(next) = next else { return Ok(()) };
                (set, inside) = (next, is);
            }
            let Ok(said) = set.comparisons(cut) else { return Ok(()) };
            let count = said.iter().filter(|is| fits(is, at)).count();
            prop_assert_eq!(count, usize::from(inside), "{:x?}", said);
        }
    }

    fn of(values: &[u64]) -> Values {
        let each = values.iter().map(|value| Values::masked(Cut::HighFirst, u64::MAX, *value));
        each.fold(Values::Nothing, |all, one| all.or(&one, &mut Budget::new()).unwrap())
    }

    #[test]
    fn what_people_write_stays_short() {
        let cut = Cut::HighFirst;
        assert_eq!(of(&[9]).not().comparisons(cut).unwrap(), [Compare::Not(9)]);
        assert_eq!(of(&[38, 40]).not().comparisons(cut).unwrap().len(), 3);
        assert!(of(&[1, 2, 10, 16]).not().comparisons(cut).unwrap().len() < 8);
        assert_eq!(Values::greater(cut, 40).unwrap().comparisons(cut).unwrap(), [Compare::AtLeast(41)]);
        assert_eq!(Values::at_least(cut, 38).unwrap().not().comparisons(cut).unwrap(), [Compare::Below(38)]);
        let flags = Values::masked(cut, 0x7E02_0000, 0).comparisons(cut).unwrap();
        assert_eq!(flags, [Compare::Masked { mask: 0x7E02_0000, value: 0 }]);
    }

    #[test]
    fn what_has_too_many_pieces_is_said_to_have_them() {
        let scattered = (0..2000u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let all = scattered.map(|value| Values::masked(Cut::HighFirst, u64::MAX, value));
        let all = all.into_iter().try_fold(Values::Nothing, |all, one| all.or(&one, &mut Budget::new()));
        assert_eq!(all, Err(TooFine));
    }
}
