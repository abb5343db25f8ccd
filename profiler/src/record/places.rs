//! From the places of a recording to named locations, and which of them are left out of a stack: the Python
//! interpreter's own.

use std::collections::BTreeMap;

use super::finish::{Modules, location};
use crate::{
    config::Interpreter,
    error::Error,
    process::{Place, Processes},
    profile::{Frame, FrameKind, Location, LocationId},
    python::{Function, Pythons, Role},
    symbolize::{Named, Symbols},
};

/// Named locations, one for each place in order.
pub(crate) struct Locations {
    pub(crate) list: Vec<Location>,
    pub(super) notes: BTreeMap<&'static str, u64>,
    pub(super) hints: Vec<String>,
}

/// Names every place.
pub(crate) fn locations(
    places: &[(Place, u64)],
    processes: &Processes,
    pythons: &Pythons,
    modules: &mut Modules,
) -> Result<Locations, Error> {
    let symbols = Symbols::spawn(processes.debug_directories())?;
    let is_python = |place: &Place| matches!(place, Place::Python { .. });
    let native: Vec<Place> = places
        .iter()
        .map(|(place, _)| *place)
        .filter(|place| !is_python(place))
        .collect();
    let resolved = symbols.resolve(native, processes)?;
    let mut names = resolved.named.into_iter();
    let mut list = Vec::with_capacity(places.len());
    for &(place, address) in places {
        let named = match place {
            Place::Python { code, line } => Some(python(pythons.function(code), line)),
            _ => names.next(),
        };
        list.extend(named.map(|named| location(named, address, modules)));
    }
    Ok(Locations {
        list,
        notes: resolved.notes,
        hints: resolved.hints,
    })
}

fn python(function: &Function, line: u32) -> Named {
    let frame = Frame {
        name: function.name.clone(),
        system_name: None,
        file: function.file.clone(),
        line: Some(line).filter(|line| *line > 0),
        first_line: function.first_line,
    };
    Named {
        kind: FrameKind::Python,
        frames: vec![frame],
        module: None,
    }
}

/// A stack's locations, without the interpreter's own if they are not wanted: the evaluator, and what
/// stands between two Python functions or right below the outermost one in the same file. What the
/// innermost Python function called is kept.
pub(crate) fn shown(
    stack: &[u32],
    places: &[(Place, u64)],
    pythons: &Pythons,
    interpreter: Interpreter,
) -> Vec<LocationId> {
    let place = |index: u32| places.get(index as usize).map(|(place, _)| *place);
    let is_python = |&index: &u32| matches!(place(index), Some(Place::Python { .. }));
    let (first, last) = (
        stack.iter().position(is_python),
        stack.iter().rposition(is_python),
    );
    let (Some(first), Some(last), Interpreter::Fold) = (first, last, interpreter) else {
        return stack.iter().copied().map(LocationId).collect();
    };
    let mut is_below = true;
    let mut kept = Vec::with_capacity(stack.len());
    for (at, &index) in stack.iter().enumerate() {
        let role = place(index).map_or(Role::Foreign, |place| pythons.role(place));
        let is_own = match role {
            Role::Foreign => {
                is_below &= at < last || is_python(&index);
                false
            }
            Role::Evaluator => at < last || is_below,
            Role::Interpreter => at > first && (at < last || is_below),
        };
        if !is_own {
            kept.push(LocationId(index));
        }
    }
    kept
}
