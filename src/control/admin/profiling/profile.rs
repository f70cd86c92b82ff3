//! The format of profiles that pprof reads: its messages, and a builder that states each text, function
//! and place once.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use prost::Message;

/// A profile. Names of messages and fields are those of pprof's `profile.proto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Profile {
    #[prost(message, repeated, tag = "1")]
    pub(super) sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    pub(super) sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    pub(super) mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    pub(super) location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    pub(super) function: Vec<Function>,
    /// The first is empty; all other texts are positions in this list.
    #[prost(string, repeated, tag = "6")]
    pub(super) string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    pub(super) time_nanos: i64,
    #[prost(int64, tag = "10")]
    pub(super) duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    pub(super) period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    pub(super) period: i64,
}

/// What a value is, and its unit.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct ValueType {
    #[prost(int64, tag = "1")]
    pub(super) r#type: i64,
    #[prost(int64, tag = "2")]
    pub(super) unit: i64,
}

/// A stack and what was measured there.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Sample {
    /// Innermost first.
    #[prost(uint64, repeated, tag = "1")]
    pub(super) location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    pub(super) value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    pub(super) label: Vec<Label>,
}

/// A property of a sample.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Label {
    #[prost(int64, tag = "1")]
    pub(super) key: i64,
    #[prost(int64, tag = "2")]
    pub(super) str: i64,
}

/// A file in the program's memory.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Mapping {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(uint64, tag = "2")]
    pub(super) memory_start: u64,
    #[prost(uint64, tag = "3")]
    pub(super) memory_limit: u64,
    #[prost(uint64, tag = "4")]
    pub(super) file_offset: u64,
    #[prost(int64, tag = "5")]
    pub(super) filename: i64,
}

/// A place in the program.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Location {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(uint64, tag = "2")]
    pub(super) mapping_id: u64,
    #[prost(uint64, tag = "3")]
    pub(super) address: u64,
    #[prost(message, repeated, tag = "4")]
    pub(super) line: Vec<Line>,
}

/// A line of source.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Line {
    #[prost(uint64, tag = "1")]
    pub(super) function_id: u64,
    #[prost(int64, tag = "2")]
    pub(super) line: i64,
}

/// A function.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Function {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(int64, tag = "2")]
    pub(super) name: i64,
    #[prost(int64, tag = "3")]
    pub(super) system_name: i64,
    #[prost(int64, tag = "4")]
    pub(super) filename: i64,
}

/// A function of a stack, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Frame {
    pub(super) name: String,
    pub(super) file: String,
    pub(super) line: i64,
}

/// Puts a profile together.
#[derive(Debug, Default)]
pub(super) struct ProfileBuilder {
    profile: Profile,
    texts: HashMap<String, i64>,
    functions: HashMap<(i64, i64), u64>,
    by_frame: HashMap<Frame, u64>,
    by_address: HashMap<u64, u64>,
}

impl ProfileBuilder {
    /// Of these values, one sample for each `period` of `period_type`; each type with its unit.
    pub(super) fn new(types: &[(&str, &str)], period_type: (&str, &str), period: i64) -> Self {
        let mut builder = Self::default();
        builder.text("");
        let types: Vec<_> = types.iter().map(|of| builder.value_type(*of)).collect();
        let period_type = builder.value_type(period_type);
        builder.profile.sample_type = types;
        builder.profile.period_type = Some(period_type);
        builder.profile.period = period;
        builder
    }

    /// States when, and for how long.
    pub(super) fn time(&mut self, started: SystemTime, duration: Duration) {
        let since = started.duration_since(SystemTime::UNIX_EPOCH);
        let nanos = |span: Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
        self.profile.time_nanos = nanos(since.unwrap_or_default());
        self.profile.duration_nanos = nanos(duration);
    }

    /// Adds a file in the program's memory. To be called before [`ProfileBuilder::addresses`].
    pub(super) fn mapping(&mut self, start: u64, end: u64, offset: u64, file: &str) {
        let filename = self.text(file);
        let id = self.profile.mapping.len() as u64 + 1;
        self.profile.mapping.push(Mapping {
            id,
            memory_start: start,
            memory_limit: end,
            file_offset: offset,
            filename,
        });
    }

    /// Adds a sample of a stack known by names, innermost first.
    pub(super) fn symbolized(
        &mut self,
        frames: &[Frame],
        value: Vec<i64>,
        label: Option<(&str, &str)>,
    ) {
        let location_id = frames.iter().map(|frame| self.place_of(frame)).collect();
        let label = label.map(|(key, text)| Label {
            key: self.text(key),
            str: self.text(text),
        });
        self.profile.sample.push(Sample {
            location_id,
            value,
            label: label.into_iter().collect(),
        });
    }

    /// Adds a sample of a stack known by return addresses, innermost first.
    pub(super) fn addresses(&mut self, stack: &[u64], value: Vec<i64>) {
        // A call returns to what follows it, perhaps another function.
        let calls = stack.iter().map(|address| address.saturating_sub(1));
        let location_id = calls.map(|address| self.place_at(address)).collect();
        self.profile.sample.push(Sample {
            location_id,
            value,
            label: Vec::new(),
        });
    }

    /// The bytes that pprof reads.
    pub(super) fn encode(&self) -> Vec<u8> {
        self.profile.encode_to_vec()
    }

    fn value_type(&mut self, (kind, unit): (&str, &str)) -> ValueType {
        ValueType {
            r#type: self.text(kind),
            unit: self.text(unit),
        }
    }

    fn text(&mut self, text: &str) -> i64 {
        if let Some(at) = self.texts.get(text) {
            return *at;
        }
        let at = i64::try_from(self.profile.string_table.len()).unwrap_or(0);
        self.profile.string_table.push(text.to_owned());
        self.texts.insert(text.to_owned(), at);
        at
    }

    fn place_of(&mut self, frame: &Frame) -> u64 {
        if let Some(id) = self.by_frame.get(frame) {
            return *id;
        }
        let (name, filename) = (self.text(&frame.name), self.text(&frame.file));
        let functions = &mut self.profile.function;
        let function_id = *self.functions.entry((name, filename)).or_insert_with(|| {
            let id = functions.len() as u64 + 1;
            functions.push(Function {
                id,
                name,
                system_name: name,
                filename,
            });
            id
        });
        let line = frame.line;
        let id = self.new_place(0, vec![Line { function_id, line }]);
        self.by_frame.insert(frame.clone(), id);
        id
    }

    fn place_at(&mut self, address: u64) -> u64 {
        if let Some(id) = self.by_address.get(&address) {
            return *id;
        }
        let id = self.new_place(address, Vec::new());
        self.by_address.insert(address, id);
        id
    }

    fn new_place(&mut self, address: u64, line: Vec<Line>) -> u64 {
        let id = self.profile.location.len() as u64 + 1;
        let holds = |m: &&Mapping| (m.memory_start..m.memory_limit).contains(&address);
        let mapping_id = self.profile.mapping.iter().find(holds).map_or(0, |m| m.id);
        self.profile.location.push(Location {
            id,
            mapping_id,
            address,
            line,
        });
        id
    }
}
