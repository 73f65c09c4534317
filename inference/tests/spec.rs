//! What is refused in `[[model]]` and `[[model_topic]]`, and where the error points.

use std::path::Path;
use std::time::Duration;

use inference::spec::{ModelSpec, ModelTopicSpec, Spanned, check};
use serde::Deserialize;

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    model: Vec<Spanned<ModelSpec>>,
    #[serde(default)]
    model_topic: Vec<Spanned<ModelTopicSpec>>,
}

/// The key, the problem, and what is written there.
fn problem(toml: &str) -> (String, String, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("m")).unwrap();
    std::fs::write(folder.path().join("m/config.json"), "{}").unwrap();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    let config: Config = toml::from_str(toml).unwrap();
    let faults = check(&config.model, &config.model_topic, folder.path());
    match faults.into_iter().next() {
        None => (String::new(), String::new(), String::new()),
        Some(error) => {
            let place = toml[error.span.clone()].to_owned();
            (error.key, error.problem.to_string(), place)
        }
    }
}

const MODEL: &str = "[[model]]\nname='m'\nsource='m'\n";

fn topics(topics: &[(&str, &str)]) -> String {
    let topics: String = topics
        .iter()
        .map(|(name, rest)| format!("[[model_topic]]\nname='{name}'\nmodel='m'\n{rest}\n"))
        .collect();
    format!("{MODEL}{topics}")
}

#[test]
fn takes_the_smallest_and_the_whole() {
    assert_eq!(problem(&topics(&[("b", "input='a'")])).0, "");
    let whole = "[[model]]\nname='m'\ntask='classify'\nlabels=['a','b']\nworkers=2\n\
        limits={timeout='5s',max_memory='1GiB'}\ncache={max_bytes=4096}\n\
        [[model.version]]\nid='1'\nsource='m'\n[[model.version]]\nid='2'\nsource='m'\n\
        [[model_topic]]\nname='b'\ninput=['a','c']\nmodel='m@2'\ncodec={in='raw',out='json'}\n\
        start='latest'\nguarantee='exactly_once'\noutput={key='input',headers='none'}\n\
        batch={max_records=64,max_delay='2ms'}\non_error={decode='skip',infer='fail',dlq='d'}\n";
    assert_eq!(problem(whole).0, "");
    let config: Config = toml::from_str(whole).unwrap();
    let topic = config.model_topic[0].get_ref();
    assert_eq!(topic.batch.max_delay.as_millis(), 2);
    assert_eq!(topic.dead_letter_topic(), None);
    let source = topic
        .resolve_model(&config.model, Path::new("/etc"))
        .unwrap();
    assert_eq!(
        (source.version.as_str(), source.folder),
        ("2", "/etc/m".into())
    );
    let engine = source.engine;
    assert_eq!((engine.workers, engine.cache_bytes), (2, 4096));
    assert_eq!(engine.timeout, Some(Duration::from_secs(5)));
    assert_eq!(source.max_memory, Some(1 << 30));
}

#[test]
fn refuses_keys_that_are_not_served() {
    for (key, name) in [
        ("drift={}", "drift"),
        ("output={key='input',value='x'}", "value"),
        ("rollout={}", "rollout"),
    ] {
        let toml = topics(&[("b", &format!("input='a'\n{key}"))]);
        let error = toml::from_str::<Config>(&toml).unwrap_err();
        assert!(
            error.message().contains(&format!("unknown field `{name}`")),
            "{error}"
        );
    }
}

#[test]
fn names_key_and_place() {
    let cases = [
        (
            format!("{MODEL}{MODEL}"),
            "model[1].name",
            "\"m\" is already model[0]",
            "'m'",
        ),
        (
            MODEL.replace("'m'\ns", "'a b'\ns"),
            "model[0].name",
            "\"a b\" is not a name",
            "'a b'",
        ),
        (
            format!("{MODEL}workers=0\n"),
            "model[0].workers",
            "0 is not between 1 and 256",
            "0",
        ),
        (
            format!("{MODEL}limits={{timeout='0s'}}\n"),
            "model[0].limits.timeout",
            "0ms is not between 1us and 3600s",
            "'0s'",
        ),
        (
            topics(&[("b", "input='a'\ncodec={out='text'}")]),
            "model_topic[0].codec.out",
            "\"text\" is a codec of inputs",
            "[[model_topic]]",
        ),
        (
            MODEL.replace("source='m'", "source='gone'"),
            "model[0].source",
            "does not exist",
            "'gone'",
        ),
        (
            MODEL.replace("source='m'", "source='empty'"),
            "model[0].source",
            "has no config.json",
            "'empty'",
        ),
        (
            format!("{MODEL}sha256='12'\n"),
            "model[0].sha256",
            "not a sha256",
            "'12'",
        ),
        (
            format!("{MODEL}[[model.version]]\nid='1'\nsource='gone'\n")
                .replace("source='m'\n", ""),
            "model[0].version[0].source",
            "does not exist",
            "'gone'",
        ),
        (
            topics(&[("b", "input='a'")]).replace("model='m'", "model='x'"),
            "model_topic[0].model",
            "no model \"x\"",
            "'x'",
        ),
        (
            topics(&[("b", "input='a'")]).replace("model='m'", "model='m@7'"),
            "model_topic[0].model",
            "no version \"7\"",
            "'m@7'",
        ),
        (
            topics(&[("b", "input=['a','a']")]),
            "model_topic[0].input[1]",
            "already an input",
            "'a'",
        ),
        (
            topics(&[("b", "input='a'\nbatch={max_records=0}")]),
            "model_topic[0].batch.max_records",
            "0 is not between",
            "0",
        ),
        (
            topics(&[("b", "input='a'\nbatch={max_tokens=0}")]),
            "model_topic[0].batch.max_tokens",
            "0 is not between",
            "0",
        ),
        (
            topics(&[("b", "input='a'"), ("b", "input='c'")]),
            "model_topic[1].name",
            "derived topic of model_topic[0]",
            "'b'",
        ),
        (
            topics(&[
                ("b", "input='a'"),
                ("c", "input='a'\non_error={dlq='b.dlq'}"),
            ]),
            "model_topic[1].on_error.dlq",
            "dead-letter topic of model_topic[0]",
            "'b.dlq'",
        ),
        (
            topics(&[("b", "input='a'"), ("c", "input=['b.changelog']")]),
            "model_topic[1].input",
            "the changelog of",
            "'b.changelog'",
        ),
        (
            topics(&[("b", "input='b'")]),
            "model_topic[0].input",
            "b -> b",
            "'b'",
        ),
        (
            topics(&[("b", "input=['a', 'b.dlq']")]),
            "model_topic[0].input[1]",
            "b.dlq -> b.dlq",
            "'b.dlq'",
        ),
        (
            topics(&[
                ("a", "input='x'"),
                ("b", "input='x'\nrule=[{when='score > 0',produce='a'}]"),
            ]),
            "model_topic[1].rule[0].produce",
            "the derived topic of model_topic[0]",
            "'a'",
        ),
        (
            topics(&[("b", "input='a'\nrule=[{when='score > 0',produce='a'}]")]),
            "model_topic[0].input",
            "a -> a",
            "'a'",
        ),
        (
            topics(&[(
                "b",
                "input='a'\nfeature=[{name='f',lookup={table='b',key='$.k',path='$.v'}}]",
            )]),
            "model_topic[0].feature[0].lookup.table",
            "b -> b",
            "'b'",
        ),
        (
            topics(&[
                (
                    "a",
                    "input='x'\nkey='$.k'\nfeature=[{name='n',agg='count'}]",
                ),
                ("a.repartition", "input='x'"),
            ]),
            "model_topic[1].name",
            "the repartition topic of model_topic[0]",
            "'a.repartition'",
        ),
        (
            topics(&[
                (
                    "a",
                    "input='x'\nkey='$.k'\nfeature=[{name='n',agg='count'}]",
                ),
                ("b", "input='a.repartition.changelog'"),
            ]),
            "model_topic[1].input",
            "the changelog of the repartition topic of model_topic[0]",
            "'a.repartition.changelog'",
        ),
        (
            topics(&[("b", "input='a'\nkey='$.k'")]),
            "model_topic[0].key",
            "no feature has an agg",
            "[[model_topic]]",
        ),
        (
            topics(&[("b", "input='a'\noutput={template={f='$f.x'}}")]),
            "model_topic[0].output.template",
            "there is no feature \"x\"",
            "[[model_topic]]",
        ),
        (
            topics(&[(
                "b",
                "input='a'\ncodec={out='raw'}\noutput={template={s='$out.score'}}",
            )]),
            "model_topic[0].output.template",
            "codec.out is not \"json\"",
            "[[model_topic]]",
        ),
    ];
    for (toml, key, expected, place) in cases {
        let found = problem(&toml);
        assert_eq!(
            (found.0.as_str(), found.2.as_str()),
            (key, place),
            "{toml}: {}",
            found.1
        );
        assert!(found.1.contains(expected), "{}: {expected}", found.1);
    }
}

#[test]
fn tells_every_fault_in_the_order_of_the_file() {
    let toml = "[[model]]\nname='m'\nsource='gone'\nworkers=0\n\
        [[model_topic]]\nname='a b'\ninput=[]\nmodel='n'\n\
        [[model_topic.feature]]\nname='f'\nagg='sum'\n\
        [[model_topic.feature]]\nname='f'\npath='$.x'\nscale={std=0}\n\
        [[model_topic.feature]]\nname='g'\nagg='count'\nwindow={tumbling='9d',slice='1s'}\n\
        [[model_topic.feature]]\nname='h'\nagg='count'\nwindow={tumbling='9d'}\n\
        [[model_topic.rule]]\nwhen='$f.none > 0'\nproduce='p q'\n";
    let config: Config = toml::from_str(toml).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let faults = check(&config.model, &config.model_topic, folder.path());
    let mut keys: Vec<&str> = faults.iter().map(|fault| fault.key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "model[0].source",
            "model[0].workers",
            "model_topic[0].feature[0]",
            "model_topic[0].feature[1].name",
            "model_topic[0].feature[1].scale",
            "model_topic[0].feature[2].window",
            "model_topic[0].input",
            "model_topic[0].model",
            "model_topic[0].name",
            "model_topic[0].rule[0].produce",
            "model_topic[0].rule[0].when",
            "model_topic[0].state.ttl",
        ]
    );
}

#[test]
fn names_the_topics_of_a_cycle_in_order() {
    let found = problem(&topics(&[
        ("x", "input='raw'"),
        ("a", "input=['x','c']"),
        ("b", "input=['a']"),
        ("c", "input=['raw','b']"),
    ]));
    assert_eq!(found.1, "model topics feed themselves: a -> b -> c -> a");
    // A diamond is none.
    let diamond = topics(&[
        ("a", "input='raw'"),
        ("b", "input='a'"),
        ("c", "input='a'"),
        ("d", "input=['b','c']"),
    ]);
    assert_eq!(problem(&diamond).0, "");
}
