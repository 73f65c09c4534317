//! Streams, and what Kafka Streams emits for their records, as the README beside this describes them.

use std::path::{Path, PathBuf};

/// A stream, and what is expected of it.
pub(crate) struct Fixture {
    pub(crate) name: String,
    pub(crate) records: Vec<Record>,
    pub(crate) windows: Vec<Kafkas>,
    /// By record, then by window.
    pub(crate) expected: Vec<Vec<Expected>>,
    /// By window: what was dropped in the end.
    pub(crate) dropped: Vec<u64>,
}

pub(crate) struct Record {
    pub(crate) key: Option<String>,
    pub(crate) time_ms: i64,
    pub(crate) value: Option<f64>,
}

/// A window, as Kafka Streams calls it.
pub(crate) struct Kafkas {
    pub(crate) text: String,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// A tumbling window's advance is its size.
    Hopping {
        size: i64,
        advance: i64,
        grace: i64,
    },
    Session {
        gap: i64,
        grace: i64,
    },
    /// A session whose store keeps it for longer than it is open.
    Retained,
}

/// What is emitted for a record.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Expected {
    pub(crate) updates: Vec<Update>,
    /// Windows that had closed, or one where the record has no key.
    pub(crate) dropped: u64,
}

/// What a window holds after a record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Update {
    /// Less the record's time.
    pub(crate) start: i64,
    /// Less the record's time; of a hopping window that is the first time which is not in it.
    pub(crate) end: i64,
    pub(crate) records: f64,
    pub(crate) values: Values,
}

/// What is made of the records that have a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Values {
    pub(crate) count: f64,
    pub(crate) sum: f64,
    /// Without a value there is no least one.
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
}

/// The fixture, or what MILENA_WINDOWS names in its place.
pub(crate) fn all() -> Vec<Fixture> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/windows_beside_kafka_streams");
    let folder = std::env::var_os("MILENA_WINDOWS").map_or(here, PathBuf::from);
    let files = folder.read_dir().expect("the folder of streams");
    let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = files
        .filter_map(|file| Some(file.strip_suffix(".stream.tsv")?.to_owned()))
        .collect();
    names.sort();
    assert_eq!(names.len(), 7, "{names:?} in {}", folder.display());
    names.iter().map(|name| read(&folder, name)).collect()
}

fn read(folder: &Path, name: &str) -> Fixture {
    let text = |kind: &str| {
        let path = folder.join(format!("{name}.{kind}.tsv"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let records: Vec<Record> = text("stream").lines().map(record).collect();
    let expected = text("expected");
    let lines: Vec<Vec<&str>> = expected
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    let [version, windows, lines @ .., dropped] = &lines[..] else {
        panic!("{name}: {} lines", lines.len());
    };
    assert_eq!(
        (version[0], windows[0], dropped[0]),
        ("#kafka-streams", "#windows", "#dropped")
    );
    assert_eq!(lines.len(), records.len(), "{name}");
    Fixture {
        name: name.to_owned(),
        records,
        windows: windows[1..].iter().map(|text| window(text)).collect(),
        expected: lines
            .iter()
            .map(|line| line.iter().map(|cell| cell_of(cell)).collect())
            .collect(),
        dropped: dropped[1..]
            .iter()
            .map(|number| number.parse().unwrap())
            .collect(),
    }
}

fn record(line: &str) -> Record {
    let fields: Vec<&str> = line.split('\t').collect();
    let [key, time, value] = fields[..] else {
        panic!("{line:?} is no record");
    };
    Record {
        key: (!key.is_empty()).then(|| key.to_owned()),
        time_ms: time.parse().unwrap(),
        value: (!value.is_empty()).then(|| value.parse().unwrap()),
    }
}

fn window(text: &str) -> Kafkas {
    let (kind, times) = text.split_once(':').expect("a window's kind");
    let ms = |wanted: &str| -> Option<i64> {
        let mut times = times.split(',').filter_map(|time| time.split_once('='));
        Some(times.find(|(name, _)| *name == wanted)?.1.parse().unwrap())
    };
    let (size, gap, grace) = (ms("size"), ms("gap"), ms("grace").unwrap());
    let kind = match kind {
        "tumbling" => Kind::Hopping {
            size: size.unwrap(),
            advance: size.unwrap(),
            grace,
        },
        "hopping" => Kind::Hopping {
            size: size.unwrap(),
            advance: ms("advance").unwrap(),
            grace,
        },
        "session" if ms("retention").is_some() => Kind::Retained,
        "session" => Kind::Session {
            gap: gap.unwrap(),
            grace,
        },
        _ => panic!("{text:?} is no window"),
    };
    Kafkas {
        text: text.to_owned(),
        kind,
    }
}

fn cell_of(text: &str) -> Expected {
    let mut expected = Expected::default();
    for part in text.split(' ').filter(|part| !part.is_empty()) {
        match part.strip_prefix('!') {
            Some(dropped) => expected.dropped = dropped.parse().unwrap(),
            None => expected.updates.push(update(part)),
        }
    }
    expected
}

fn update(text: &str) -> Update {
    let fields: Vec<&str> = text.split(',').collect();
    let [start, end, records, count, sum, min, max] = fields[..] else {
        panic!("{text:?} is no update");
    };
    let number = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
    Update {
        start: start.parse().unwrap(),
        end: end.parse().unwrap(),
        records: records.parse().unwrap(),
        values: Values {
            count: count.parse().unwrap(),
            sum: sum.parse().unwrap(),
            min: number(min),
            max: number(max),
        },
    }
}
