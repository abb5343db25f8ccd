//! What all profiles of a request share: each distinct piece once, referred to by its position.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, any_value::Value},
    profiles::v1development::{
        Function, KeyValueAndUnit, Line, Link, Location, Mapping, ProfilesDictionary, Stack,
    },
};
use rustc_hash::FxHashMap;

use crate::{
    output::{figures::hexadecimal, frame_class::FrameClass},
    profile::{self, FrameKind, LocationId, ModuleId, Profile, StackId, ThreadId},
};

/// The tables as they grow, and where pieces of the profile are in them.
pub(super) struct Dictionary<'a> {
    profile: &'a Profile,
    tables: ProfilesDictionary,
    strings: FxHashMap<String, i32>,
    functions: FxHashMap<[i64; 4], i32>,
    attributes: FxHashMap<(&'static str, String), i32>,
    modules: FxHashMap<ModuleId, i32>,
    locations: FxHashMap<LocationId, i32>,
    stacks: FxHashMap<StackId, i32>,
}

impl<'a> Dictionary<'a> {
    pub(super) fn new(profile: &'a Profile) -> Self {
        let tables = ProfilesDictionary {
            mapping_table: vec![Mapping::default()],
            location_table: vec![Location::default()],
            function_table: vec![Function::default()],
            link_table: vec![Link::default()],
            string_table: vec![String::new()],
            attribute_table: vec![KeyValueAndUnit::default()],
            stack_table: vec![Stack::default()],
        };
        Self {
            profile,
            tables,
            strings: std::iter::once((String::new(), 0)).collect(),
            functions: FxHashMap::default(),
            attributes: FxHashMap::default(),
            modules: FxHashMap::default(),
            locations: FxHashMap::default(),
            stacks: FxHashMap::default(),
        }
    }

    pub(super) fn finish(self) -> ProfilesDictionary {
        self.tables
    }

    pub(super) fn string(&mut self, text: &str) -> i32 {
        if let Some(place) = self.strings.get(text) {
            return *place;
        }
        let place = push(&mut self.tables.string_table, text.to_owned());
        self.strings.insert(text.to_owned(), place);
        place
    }

    pub(super) fn stack(&mut self, id: StackId) -> i32 {
        if let Some(place) = self.stacks.get(&id) {
            return *place;
        }
        let ids = &self.profile.stacks[id.index()].locations;
        let location_indices = ids.iter().map(|id| self.location(*id)).collect();
        let place = push(&mut self.tables.stack_table, Stack { location_indices });
        self.stacks.insert(id, place);
        place
    }

    /// Whose a sample is, as far as it is known.
    pub(super) fn thread_attributes(&mut self, id: ThreadId) -> Vec<i32> {
        let (process, thread) = (self.profile.process_of(id), self.profile.thread(id));
        let mut indices = Vec::new();
        for (key, number) in [("process.pid", process.pid), ("thread.id", thread.tid)] {
            if number > 0 {
                let value = Value::IntValue(i64::from(number));
                indices.push(self.attribute(key, number.to_string(), value));
            }
        }
        let names = [
            ("process.executable.name", &process.comm),
            ("thread.name", &thread.name),
        ];
        for (key, name) in names {
            if !name.is_empty() {
                let value = Value::StringValue(name.clone());
                indices.push(self.attribute(key, name.clone(), value));
            }
        }
        indices
    }

    fn attribute(&mut self, key: &'static str, text: String, value: Value) -> i32 {
        let key_strindex = self.string(key);
        let table = &mut self.tables.attribute_table;
        *self.attributes.entry((key, text)).or_insert_with(|| {
            let attribute = KeyValueAndUnit {
                key_strindex,
                value: Some(AnyValue { value: Some(value) }),
                unit_strindex: 0,
            };
            push(table, attribute)
        })
    }

    fn location(&mut self, id: LocationId) -> i32 {
        if let Some(place) = self.locations.get(&id) {
            return *place;
        }
        let location = self.profile.location(id);
        let frames = location.frames.iter();
        let lines = frames
            .map(|frame| self.line(location.kind, frame))
            .collect();
        let kind = frame_type(location.kind).map(|word| {
            let value = Value::StringValue(word.to_owned());
            self.attribute("profile.frame.type", word.to_owned(), value)
        });
        let location = Location {
            mapping_index: location.module.map_or(0, |id| self.mapping(id)),
            address: location.address,
            lines,
            attribute_indices: kind.into_iter().collect(),
        };
        let place = push(&mut self.tables.location_table, location);
        self.locations.insert(id, place);
        place
    }

    fn mapping(&mut self, id: ModuleId) -> i32 {
        if let Some(place) = self.modules.get(&id) {
            return *place;
        }
        let module = &self.profile.modules[id.index()];
        let build_id = hexadecimal(&module.build_id);
        let build_id = (!build_id.is_empty()).then(|| {
            let value = Value::StringValue(build_id.clone());
            self.attribute("process.executable.build_id.gnu", build_id, value)
        });
        let mapping = Mapping {
            memory_start: module.start,
            memory_limit: module.end,
            file_offset: module.file_offset,
            filename_strindex: self.string(&module.path),
            attribute_indices: build_id.into_iter().collect(),
        };
        let place = push(&mut self.tables.mapping_table, mapping);
        self.modules.insert(id, place);
        place
    }

    fn line(&mut self, kind: FrameKind, frame: &profile::Frame) -> Line {
        let name = match kind {
            FrameKind::Marker => FrameClass::Marker.mark(&frame.name),
            FrameKind::Kernel | FrameKind::Native | FrameKind::Jit | FrameKind::Python => {
                frame.name.clone()
            }
        };
        let (name_strindex, filename_strindex) = (
            self.string(&name),
            self.string(frame.file.as_deref().unwrap_or("")),
        );
        let system_name_strindex = self.string(frame.system_name.as_deref().unwrap_or(""));
        let start_line = frame.first_line.map_or(0, i64::from);
        let indices = [name_strindex, system_name_strindex, filename_strindex];
        let [name, system_name, filename] = indices.map(i64::from);
        let table = &mut self.tables.function_table;
        let entry = self
            .functions
            .entry([name, system_name, filename, start_line]);
        let function_index = *entry.or_insert_with(|| {
            let function = Function {
                name_strindex,
                system_name_strindex,
                filename_strindex,
                start_line,
            };
            push(table, function)
        });
        Line {
            function_index,
            line: frame.line.map_or(0, i64::from),
            column: 0,
        }
    }
}

/// The conventions' word, where they have one.
fn frame_type(kind: FrameKind) -> Option<&'static str> {
    match kind {
        FrameKind::Kernel => Some("kernel"),
        FrameKind::Native => Some("native"),
        FrameKind::Python => Some("cpython"),
        FrameKind::Jit | FrameKind::Marker => None,
    }
}

/// Puts it at the end and gives its position. Tables of a window are far smaller than 2^31.
fn push<T>(table: &mut Vec<T>, item: T) -> i32 {
    table.push(item);
    i32::try_from(table.len() - 1).unwrap_or(i32::MAX)
}
