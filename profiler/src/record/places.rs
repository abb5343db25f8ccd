//! From the places of a recording to named locations, and which of them are left out of a stack: the Python
//! interpreter's own.

use std::collections::{BTreeMap, HashMap};

use super::captured::{Modules, location};
use crate::{
    config::Interpreter,
    process::Place,
    profile::{Frame, FrameKind, Location, LocationId},
    python::{CodeId, Function, Pythons, Role},
    symbolize::{NAMELESS_CODE, Named, Resolved},
};

/// What a Python interpreter has compiled.
const COMPILED: &str = "[compiled Python]";

/// Named locations, one for each place in order.
pub(crate) struct Locations {
    pub(crate) list: Vec<Location>,
    pub(super) notes: BTreeMap<&'static str, u64>,
    pub(super) hints: Vec<String>,
}

/// What the interpreters know of places: taken out, so that naming them needs no live process.
#[derive(Debug, Default)]
pub(crate) struct PythonPlaces {
    functions: HashMap<CodeId, Function>,
    roles: Vec<Role>,
}

impl PythonPlaces {
    /// Of these places, in order.
    pub(crate) fn of(places: &[(Place, u64)], pythons: &Pythons) -> Self {
        let codes = places.iter().filter_map(|(place, _)| match place {
            Place::Python { code, .. } => Some(*code),
            _ => None,
        });
        Self {
            functions: codes
                .map(|code| (code, pythons.function(code).clone()))
                .collect(),
            roles: places
                .iter()
                .map(|(place, _)| pythons.role(*place))
                .collect(),
        }
    }

    fn role(&self, index: u32) -> Role {
        let role = self.roles.get(index as usize);
        role.copied().unwrap_or(Role::Foreign)
    }
}

/// Names every place; `resolve` names those that are no Python code.
pub(crate) fn locations<E>(
    places: &[(Place, u64)],
    pythons: &PythonPlaces,
    modules: &mut Modules,
    resolve: impl FnOnce(Vec<Place>) -> Result<Resolved, E>,
) -> Result<Locations, E> {
    let is_python = |place: &Place| matches!(place, Place::Python { .. });
    let native: Vec<Place> = places
        .iter()
        .map(|(place, _)| *place)
        .filter(|place| !is_python(place))
        .collect();
    let resolved = resolve(native)?;
    let mut names = resolved.named.into_iter();
    let mut list = Vec::with_capacity(places.len());
    for (index, &(place, address)) in (0..).zip(places) {
        let mut named = match place {
            Place::Python { code, line } => {
                pythons.functions.get(&code).map(|code| python(code, line))
            }
            _ => names.next(),
        };
        if let Some(named) = &mut named
            && pythons.role(index) == Role::Compiled
        {
            name_compiled(named);
        }
        list.extend(named.map(|named| location(named, address, modules)));
    }
    Ok(Locations {
        list,
        notes: resolved.notes,
        hints: resolved.hints,
    })
}

/// A map of the runtime's may have named it.
fn name_compiled(named: &mut Named) {
    for frame in &mut named.frames {
        if frame.name == NAMELESS_CODE {
            COMPILED.clone_into(&mut frame.name);
        }
    }
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
        kind: if function.is_gap {
            FrameKind::Marker
        } else {
            FrameKind::Python
        },
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
    pythons: &PythonPlaces,
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
        let is_own = match pythons.role(index) {
            Role::Foreign => {
                is_below &= at < last || is_python(&index);
                false
            }
            Role::Evaluator | Role::Compiled => at < last || is_below,
            Role::Interpreter => at > first && (at < last || is_below),
        };
        if !is_own {
            kept.push(LocationId(index));
        }
    }
    kept
}
