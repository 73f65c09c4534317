use inference::spec::ModelTopicSpec;

use super::*;
use crate::catalog::topic_config::ConfigSource;

fn refusal(text: &str) -> String {
    match Config::parse(text, Path::new("milena.toml")) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(
        Config::parse("", Path::new("milena.toml")),
        Ok(Config::default())
    );
}

#[test]
fn the_documented_file_has_every_key_with_its_default() {
    let text = include_str!("../../../config/milena.toml");
    let config = Config::parse(text, Path::new("milena.toml")).expect("it is legal");
    assert_eq!(config, Config::default());

    // Every section's keys, as the code knows them: an unknown key's error lists them.
    let table = DeTable::parse(text).expect("it is TOML");
    for section in ["broker", "log", "group", "transaction", "http"] {
        let known = refusal(&format!("[{section}]\nno_such_key = 1"));
        let (_, known) = known
            .split_once("expected ")
            .expect("the error lists the keys");
        let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        let written = table
            .get_ref()
            .get(section)
            .expect("the file has the section");
        let written = written.get_ref().as_table().expect("a table");
        for key in &known {
            assert!(
                written.contains_key(*key),
                "config/milena.toml lacks {section}.{key}"
            );
        }
        assert_eq!(written.len(), known.len());
    }
}

#[test]
fn the_examples_of_the_documented_file_are_legal() {
    let text = include_str!("../../../config/milena.toml");
    let examples: String = text
        .lines()
        .filter_map(|line| line.strip_prefix("#| "))
        .flat_map(|line| [line, "\n"])
        .collect();
    let config = deserialize(&examples, Path::new("milena.toml")).expect("legal");
    assert_eq!(config.check(), Ok(()));
    assert_eq!(config.topic.len(), 1);
    assert_eq!(config.model.len(), 3);
    // What is shown as a default is one.
    let shown = config.model_topic.first().expect("an example").get_ref();
    let least = "[[model_topic]]\nname = \"transactions.scored\"\ninput = \"transactions\"\nmodel = \"fraud\"\n";
    let least = deserialize(least, Path::new("milena.toml")).expect("legal");
    let least = least
        .model_topic
        .first()
        .expect("the same")
        .get_ref()
        .clone();
    assert_eq!(shown.dead_letter_topic(), least.dead_letter_topic());
    let without_dlq = |mut spec: ModelTopicSpec| {
        spec.on_error.dlq = None;
        spec
    };
    assert_eq!(without_dlq(shown.clone()), without_dlq(least));
}

#[test]
fn models_are_checked_with_line_and_value() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let good = folder.path().join("m");
    std::fs::create_dir(&good).expect("a folder");
    std::fs::write(good.join("config.json"), "{}").expect("a file");
    let model = "[[model]]\nname = \"m\"\nsource = \"m\"\n";
    let topic = |name: &str, input: &str| {
        format!("[[model_topic]]\nname = \"{name}\"\ninput = \"{input}\"\nmodel = \"m\"\n")
    };
    for (text, expected) in [
        (
            "[[model]]\nname = \"m\"\nsource = \"nowhere\"\n".to_owned(),
            "3: model[0].source = \"nowhere\": ",
        ),
        (
            format!("{model}sorce = 1\n"),
            "4: model[0].sorce: unknown field `sorce`",
        ),
        (
            format!("{model}{}", topic("out", "in").replace("\"m\"", "\"n\"")),
            "7: model_topic[0].model = \"n\": there is no model \"n\"",
        ),
        (
            format!("{model}{}state = {{}}\n", topic("out", "in")),
            "8: model_topic[0].state: unknown field `state`",
        ),
        (
            format!("{model}{}{}", topic("a", "b"), topic("b", "a")),
            "10: model_topic[1].input = \"a\": model topics feed themselves: a -> b -> a",
        ),
    ] {
        let path = folder.path().join("milena.toml");
        let error = Config::parse(&text, &path)
            .expect_err("refused")
            .to_string();
        let expected = format!("{}:{expected}", path.display());
        assert!(error.starts_with(&expected), "{error}\nis not\n{expected}");
    }
    let text = format!("{model}{}{}", topic("a", "in"), topic("b", "a"));
    let path = folder.path().join("milena.toml");
    assert!(Config::parse(&text, &path).is_ok());
}

#[test]
fn refusals_say_where_and_what() {
    for (text, expected) in [
        (
            "[broker]\n\nnum_partition = 3\n",
            "milena.toml:3: broker.num_partition: unknown field",
        ),
        (
            "[broken]\n",
            "milena.toml:1: broken: unknown field `broken`",
        ),
        ("\n\n[broker\n", "milena.toml:3: "),
        (
            "[broker]\nnode_id = \"one\"\n",
            "milena.toml:2: broker.node_id: invalid type: string \"one\"",
        ),
        (
            "[broker]\nnode_id = 1\nnum_partitions = 0\n",
            "milena.toml:3: broker.num_partitions = 0: must be at least 1",
        ),
        (
            "[broker]\nlisten = \"nowhere\"\n",
            "milena.toml:2: broker.listen = \"nowhere\": is not an address",
        ),
        (
            "[broker]\nlisten = \"0.0.0.0:9092\"\n",
            "milena.toml:1: broker.advertise: must be set",
        ),
        (
            "[broker]\nadvertise = \"a b:1\"\n",
            "milena.toml:2: broker.advertise = \"a b:1\": must be a host",
        ),
        (
            "[broker]\nlog_format = \"xml\"\n",
            "milena.toml:2: broker.log_format: unknown variant `xml`",
        ),
        (
            "[log]\nacks_all_durability = \"tape\"\n",
            "milena.toml:2: log.acks_all_durability = \"tape\": config milena.acks.all.durability",
        ),
        (
            "[log]\ncleaner_threads = 0\n",
            "milena.toml:2: log.cleaner_threads = 0: must be at least 1",
        ),
        (
            "[log]\ncleaner_threads = 3\ncleaner_dedupe_buffer_size = 3145727\n",
            "milena.toml:3: log.cleaner_dedupe_buffer_size = 3145727: must be at least 3145728",
        ),
        (
            "[log]\ncleaner_io_buffer_size = 2147483648\n",
            "milena.toml:2: log.cleaner_io_buffer_size = 2147483648: must be at most 2147483647",
        ),
        (
            "[log]\ncleaner_io_max_bytes_per_second = 0\n",
            "milena.toml:2: log.cleaner_io_max_bytes_per_second = 0: must be a number of at least 1",
        ),
        (
            "[log]\ncleaner_io_max_bytes_per_second = nan\n",
            "milena.toml:2: log.cleaner_io_max_bytes_per_second = nan: must be a number of at least 1",
        ),
        (
            "[log]\ncleaner_io_buffer_load_factor = 1.5\n",
            "milena.toml:2: log.cleaner_io_buffer_load_factor = 1.5: must be between 0.01 and 1",
        ),
        (
            "[log]\ncleaner_backoff_ms = -1\n",
            "milena.toml:2: log.cleaner_backoff_ms: invalid value: integer `-1`",
        ),
        (
            "[log]\ncleanup_policy = \"shred\"\n",
            "milena.toml:2: log.cleanup_policy = \"shred\": config cleanup.policy",
        ),
        (
            "[log]\nmin_cleanable_dirty_ratio = 2\n",
            "milena.toml:2: log.min_cleanable_dirty_ratio = 2: config min.cleanable.dirty.ratio",
        ),
        (
            "[log]\nmax_compaction_lag_ms = 0\n",
            "milena.toml:2: log.max_compaction_lag_ms = 0: config max.compaction.lag.ms",
        ),
        (
            "[group]\ngroup_max_session_timeout_ms = 5\n",
            "milena.toml:2: group.group_max_session_timeout_ms = 5: must be at least 6000",
        ),
        (
            "[http]\nport = 1\n",
            "milena.toml:2: http.port: unknown field `port`, expected `listen`",
        ),
        (
            "[[topic]]\nname = \"a\"\n\n[[topic]]\nname = \"a\"\n",
            "milena.toml:5: topic[1].name = \"a\": there are two topics named 'a'",
        ),
        (
            "[[topic]]\nname = \"a/b\"\n",
            "milena.toml:2: topic[0].name = \"a/b\": ",
        ),
        (
            "[[topic]]\nname = \"__consumer_offsets\"\n",
            "milena.toml:2: topic[0].name = \"__consumer_offsets\": the broker creates",
        ),
        (
            "[[topic]]\nname = \"o.dlq\"\n[[model_topic]]\nname = \"o\"\ninput = \"i\"\nmodel = \"m\"\n",
            "milena.toml:2: topic[0].name = \"o.dlq\": the broker creates",
        ),
        (
            "[[topic]]\npartitions = 4\n",
            "milena.toml:1: topic[0]: missing field `name`",
        ),
        (
            "[[topic]]\nname = \"a\"\npartitions = -1\n",
            "milena.toml:3: topic[0].partitions = -1: must be at least 1",
        ),
        (
            "[[topic]]\nname = \"a\"\nconfigs = { \"segment.byte\" = 1 }\n",
            "milena.toml:3: topic[0].configs: config segment.byte",
        ),
    ] {
        let error = refusal(text);
        assert!(error.starts_with(expected), "{error}\nis not\n{expected}");
    }
}

#[test]
fn addresses() {
    let bound = "127.0.0.1:4711".parse().expect("an address");
    for (listen, advertise, expected) in [
        ("localhost:0", "", ("localhost", 4711)),
        ("[::1]:0", "", ("::1", 4711)),
        ("0.0.0.0:0", "broker.example", ("broker.example", 4711)),
        (
            "0.0.0.0:0",
            "broker.example:19092",
            ("broker.example", 19092),
        ),
        ("0.0.0.0:0", "10.0.0.7", ("10.0.0.7", 4711)),
        ("0.0.0.0:0", "::1", ("::1", 4711)),
        ("0.0.0.0:0", "[::1]:9", ("::1", 9)),
    ] {
        let mut config = Config::default();
        config.broker.listen = listen.to_owned();
        config.broker.advertise = advertise.to_owned();
        assert_eq!(
            config.advertised(bound),
            Ok((expected.0.to_owned(), expected.1)),
            "{advertise}"
        );
    }
}

#[test]
fn only_what_the_file_changes_counts_as_set() {
    let config = Config::parse("[log]\nsegment_bytes = 2097152\n", Path::new("milena.toml"));
    let defaults = config.expect("legal").topic_defaults().expect("legal");
    let place = defaults.places("segment.bytes").next();
    assert_eq!(place, Some(("2097152", ConfigSource::BrokerFile)));
    assert_eq!(defaults.places("segment.ms").next(), None);
}
