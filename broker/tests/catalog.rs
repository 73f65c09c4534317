//! The catalog over a real data folder: what survives a restart, and what a crash leaves behind.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker::catalog::{
    Catalog, CatalogError, NewTopic, Topic, TopicConfig, TopicDefaults, TopicKind,
};
use broker::clock::SystemClock;
use faulty_disk::{Call, Failure, Fault, FaultyDisk};
use storage::LogDir;
use storage::disk::RealDisk;
use storage::log_dir::LogDirConfig;
use storage::partition_log::{Durability, ReadLimit};

fn log_dir_config(path: &Path) -> LogDirConfig {
    LogDirConfig {
        path: path.to_owned(),
        node_id: 0,
        sync_threads: 2,
        recovery_threads: 2,
    }
}

fn open_log_dir(path: &Path) -> Arc<LogDir> {
    // A change whose caller went away may hold the folder a moment longer than the catalog.
    for _ in 0..500 {
        match LogDir::open(log_dir_config(path), Arc::new(RealDisk)) {
            Err(storage::Error::Locked(_)) => std::thread::sleep(Duration::from_millis(10)),
            opened => return Arc::new(opened.unwrap()),
        }
    }
    panic!("{} stays locked", path.display());
}

async fn try_open(path: &Path) -> Result<Catalog, CatalogError> {
    Catalog::open(
        open_log_dir(path),
        TopicDefaults::default(),
        Arc::new(SystemClock),
    )
    .await
}

async fn open(path: &Path) -> Catalog {
    try_open(path).await.unwrap()
}

fn new_topic(name: &str, partitions: i32) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        partitions,
        configs: BTreeMap::new(),
        kind: TopicKind::Ordinary,
    }
}

fn names(catalog: &Catalog) -> Vec<String> {
    catalog
        .topics()
        .iter()
        .map(|topic| topic.name.clone())
        .collect()
}

type Facts = (
    String,
    uuid::Uuid,
    TopicKind,
    BTreeMap<String, String>,
    TopicConfig,
    usize,
);

fn facts(catalog: &Catalog) -> Vec<Facts> {
    let facts = |topic: &Topic| {
        let Topic {
            name,
            id,
            kind,
            configs,
            config,
            partitions,
        } = topic.clone();
        (name, id, kind, configs, config, partitions.len())
    };
    catalog.topics().iter().map(|topic| facts(topic)).collect()
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_configs_and_ids_survive_a_restart_clean_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let before = {
        let log_dir = open_log_dir(folder.path());
        let clock = Arc::new(SystemClock);
        let catalog = Catalog::open(Arc::clone(&log_dir), TopicDefaults::default(), clock)
            .await
            .unwrap();
        let mut configured = new_topic("b.configured", 3);
        configured.configs = BTreeMap::from([
            ("segment.ms".to_owned(), " 1000 ".to_owned()),
            (
                "milena.acks.all.durability".to_owned(),
                "page_cache".to_owned(),
            ),
        ]);
        let configured = catalog.create_topic(configured).await.unwrap();
        assert_eq!(configured.config.log.segment_ms, 1000);
        assert_eq!(configured.config.durability_all, Durability::PageCache);
        let derived = NewTopic {
            kind: TopicKind::Derived {
                model_topic: "m".to_owned(),
            },
            ..new_topic("c.derived", 2)
        };
        catalog.create_topic(derived).await.unwrap();
        catalog.create_topic(new_topic("a", 1)).await.unwrap();
        assert_eq!(names(&catalog), ["a", "b.configured", "c.derived"]);
        tokio::task::spawn_blocking(move || log_dir.shutdown())
            .await
            .unwrap()
            .unwrap();
        facts(&catalog)
    };
    // The second round starts from what a crash leaves: nothing was shut down.
    for round in ["clean", "unclean"] {
        let catalog = open(folder.path()).await;
        assert_eq!(facts(&catalog), before, "{round}");
        for topic in catalog.topics() {
            assert_eq!(catalog.topic_by_id(topic.id).unwrap().name, topic.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_created_again_has_a_new_id_and_readers_of_the_old_one_fail() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = open(folder.path()).await;
    let first = catalog.create_topic(new_topic("t", 2)).await.unwrap();
    catalog.delete_topic("t").await.unwrap();
    assert!(catalog.topic("t").is_none() && catalog.topic_by_id(first.id).is_none());
    assert!(!folder.path().join("t-0").exists() && !folder.path().join("t-1").exists());
    let read = first.partitions[0].read(0, 1000, true, ReadLimit::HighWatermark);
    assert!(matches!(read, Err(storage::Error::Closed)), "{read:?}");
    assert!(matches!(
        catalog.delete_topic("t").await,
        Err(CatalogError::UnknownTopic(_))
    ));

    let second = catalog.create_topic(new_topic("t", 1)).await.unwrap().id;
    assert_ne!(first.id, second);
    drop((catalog, first));
    let catalog = open(folder.path()).await;
    assert_eq!(catalog.topic("t").unwrap().id, second);
    assert_eq!(catalog.topic("t").unwrap().partitions.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producer_ids_never_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let mut end = 0;
    for _ in 0..3 {
        let catalog = open(folder.path()).await;
        for _ in 0..3 {
            let block = catalog.next_producer_id_block(1000).await.unwrap();
            assert_eq!(block, end..end + 1000);
            end = block.end;
        }
    }
    let catalog = open(folder.path()).await;
    let too_many = catalog.next_producer_id_block(i64::MAX).await;
    assert!(
        matches!(too_many, Err(CatalogError::ProducerIdsExhausted)),
        "{too_many:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_that_a_crash_kept_from_being_created_are_created_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path())
        .await
        .create_topic(new_topic("t", 3))
        .await
        .unwrap();
    std::fs::remove_dir_all(folder.path().join("t-1")).unwrap();
    let catalog = open(folder.path()).await;
    assert_eq!(catalog.topic("t").unwrap().partitions.len(), 3);
    assert!(folder.path().join("t-1").is_dir());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_folders_of_deleted_topics_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let copies = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    {
        let catalog = open(folder.path()).await;
        catalog.create_topic(new_topic("gone", 1)).await.unwrap();
        catalog.create_topic(new_topic("again", 2)).await.unwrap();
    }
    for name in ["gone-0", "again-1"] {
        copy_folder(&at(name), &copies.path().join(name));
    }
    {
        let catalog = open(folder.path()).await;
        catalog.delete_topic("gone").await.unwrap();
        catalog.delete_topic("again").await.unwrap();
        catalog.create_topic(new_topic("again", 2)).await.unwrap();
    }
    // As if the process had died between the records and the removal of the old folders.
    std::fs::remove_dir_all(at("again-1")).unwrap();
    for name in ["gone-0", "again-1"] {
        copy_folder(&copies.path().join(name), &at(name));
    }
    // And one that this catalog never knew, from another data folder.
    let elsewhere = tempfile::tempdir().unwrap();
    open(elsewhere.path())
        .await
        .create_topic(new_topic("foreign", 1))
        .await
        .unwrap();
    copy_folder(&elsewhere.path().join("foreign-0"), &at("foreign-0"));

    let catalog = open(folder.path()).await;
    assert_eq!(names(&catalog), ["again"]);
    assert!(!at("gone-0").exists());
    assert!(at("again-0").is_dir() && at("again-1").is_dir());
    assert!(at("foreign-0").is_dir());
    let in_the_way = catalog.create_topic(new_topic("foreign", 2)).await;
    assert!(
        matches!(in_the_way, Err(CatalogError::FolderInTheWay(_))),
        "{in_the_way:?}"
    );
    assert!(at("foreign-0").is_dir() && !at("foreign-1").exists());
    assert!(catalog.topic("foreign").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_folder_without_its_catalog_is_refused_and_nothing_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path())
        .await
        .create_topic(new_topic("precious", 1))
        .await
        .unwrap();
    std::fs::remove_dir_all(folder.path().join("__milena_catalog-0")).unwrap();
    // Twice: the first refusal leaves an empty catalog behind.
    for _ in 0..2 {
        let error = try_open(folder.path()).await.unwrap_err();
        assert!(matches!(error, CatalogError::Missing { .. }), "{error}");
        assert!(error.to_string().contains("precious-0"), "{error}");
        assert!(folder.path().join("precious-0").is_dir());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_number_of_auto_creations_get_one_topic() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = Arc::new(open(folder.path()).await);
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let catalog = Arc::clone(&catalog);
            tokio::spawn(async move { catalog.auto_create("t", 4).await.unwrap().id })
        })
        .collect();
    let mut ids = std::collections::HashSet::new();
    for task in tasks {
        ids.insert(task.await.unwrap());
    }
    assert_eq!(ids.len(), 1);
    assert_eq!(catalog.topic("t").unwrap().partitions.len(), 4);
    for reserved in ["__consumer_offsets", "__milena_catalog"] {
        let refused = catalog.auto_create(reserved, 1).await;
        assert!(
            matches!(refused, Err(CatalogError::InvalidName(..))),
            "{refused:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = open(folder.path()).await;
    catalog.create_topic(new_topic("t", 1)).await.unwrap();
    let mut bad_config = new_topic("bad", 1);
    bad_config
        .configs
        .insert("segment.ms".to_owned(), "soon".to_owned());
    for refused in [
        new_topic("t", 1),
        new_topic("bad/name", 1),
        new_topic("bad", 0),
        new_topic("bad", 10_001),
        bad_config,
    ] {
        assert!(catalog.check_new_topic(&refused).is_err(), "{refused:?}");
        assert!(catalog.create_topic(refused).await.is_err());
    }
    assert!(catalog.check_new_topic(&new_topic("fine", 1)).is_ok());
    assert_eq!(names(&catalog), ["t"]);
    drop(catalog);
    assert_eq!(names(&open(folder.path()).await), ["t"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_goes_on_where_its_caller_goes_away() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = open(folder.path()).await;
    tokio::select! {
        biased;
        created = catalog.create_topic(new_topic("t", 1)) => panic!("{created:?} at once"),
        () = std::future::ready(()) => {}
    }
    // It was given up on, and comes all the same.
    for _ in 0..500 {
        if !names(&catalog).is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(names(&catalog), ["t"]);
    drop(catalog);
    assert_eq!(names(&open(folder.path()).await), ["t"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_that_fails_half_way_is_undone() {
    let folder = tempfile::tempdir().unwrap();
    {
        let disk = FaultyDisk::over(folder.path());
        let full = Failure::Errno(libc::ENOSPC);
        disk.fail(Fault::new(Call::CreateDir, full).on("t-2"));
        let log_dir = LogDir::open(log_dir_config(folder.path()), Arc::new(disk)).unwrap();
        let defaults = TopicDefaults::default();
        let catalog = Catalog::open(Arc::new(log_dir), defaults, Arc::new(SystemClock))
            .await
            .unwrap();
        let failed = catalog.create_topic(new_topic("t", 4)).await;
        assert!(
            matches!(failed, Err(CatalogError::Storage(_))),
            "{failed:?}"
        );
        assert!(catalog.topic("t").is_none());
        for partition in 0..4 {
            assert!(
                !folder.path().join(format!("t-{partition}")).exists(),
                "t-{partition}"
            );
        }
        // What there is room for is created all the same.
        assert_eq!(
            catalog
                .create_topic(new_topic("t", 2))
                .await
                .unwrap()
                .partitions
                .len(),
            2
        );
    }
    let catalog = open(folder.path()).await;
    assert_eq!(catalog.topic("t").unwrap().partitions.len(), 2);
}
