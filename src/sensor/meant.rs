//! What a refused write meant: nothing at all, what its path says, or what a link made of it.
//!
//! Owns: those questions, of one record. Must not: know what is known, or who answers.

use super::absent::Root;
use super::decode;
use super::layout::{Record, Told};
use super::leads::Mounted;
use super::reading::Operation;
use crate::guard::{Refusal, Refused};

/// Whether a refused call would have done nothing: see [`Refused::Write`]. A caller that changes the name that it gave while the
/// kernel works is told by the later one; so it is wherever names are told.
pub(super) fn is_of_nothing(told: &Told<'_>, root: Option<&Root>, renames_nothing: &mut Option<i32>) -> bool {
    let (record, pid) = (&told.record, told.pid as i32);
    let path = text(told);
    let lacks = || record.flags & (Record::NO_PATH | Record::CUT) == 0 && root.is_some_and(|root| root.lacks(path));
    match decode::operation(record.what) {
        Some(Operation::Remove) => lacks(),
        Some(Operation::Rename) => {
            let nothing = lacks();
            *renames_nothing = nothing.then_some(pid);
            nothing
        }
        Some(Operation::Create) => renames_nothing.take_if(|renaming| *renaming == pid).is_some(),
        Some(Operation::Write | Operation::Attributes) | None => false,
    }
}

/// Whether a write that is known by its path is one of what the path says, rather than of what a link leads to that the container
/// has made.
pub(super) fn is_there(
    told: &Told<'_>,
    refusal: &Refusal,
    root: Option<&Root>,
    mounted: &mut Mounted,
    is_known: impl Fn(&Refusal) -> bool,
) -> bool {
    let Refused::Write { of_nothing: false, operation, .. } = &refusal.refused else { return true };
    if told.record.kind != Record::PATH {
        return true;
    }
    let path = text(told);
    let Some(place) = root.and_then(|root| mounted.read_only_place(root, path)) else { return false };
    // Text alone takes `..` for the folder that is written before it.
    let climbs = path.split(|byte| *byte == b'/').any(|name| name == b"..");
    let (path, operation) = (place.to_string_lossy().into_owned(), operation.clone());
    let refused = Refused::Write { path, operation, of_nothing: false };
    !climbs || is_known(&Refusal { refused, ..refusal.clone() })
}

/// The path as its caller wrote it, below the folder that it was meant in.
fn text<'a>(told: &Told<'a>) -> &'a [u8] {
    told.record.text.split(|byte| *byte == 0).next().unwrap_or_default()
}
