//! Histories of one group, in simulated time.

use std::collections::BTreeMap;

use super::*;

const DELAY: Millis = 3_000;
const SESSION: Millis = 10_000;
const REBALANCE: Millis = 60_000;

/// A group, its time, and everything that it has answered. Writes succeed at once unless held.
struct Sim {
    group: Group,
    now: Millis,
    tickets: Ticket,
    joins: BTreeMap<Ticket, JoinAnswer>,
    syncs: BTreeMap<Ticket, SyncAnswer>,
    stored: Vec<GroupMetadataValue>,
    hold_writes: bool,
    held: Vec<Stored>,
    wakes: Vec<Millis>,
}

impl Sim {
    fn new() -> Self {
        Self::with(Limits {
            max_size: 100,
            initial_rebalance_delay_ms: DELAY,
            new_member_join_timeout_ms: 300_000,
            max_pending: 100,
            max_subscription_bytes: 1 << 20,
        })
    }

    fn with(limits: Limits) -> Self {
        Self {
            group: Group::new(limits),
            now: 1_000,
            tickets: 0,
            joins: BTreeMap::new(),
            syncs: BTreeMap::new(),
            stored: Vec::new(),
            hold_writes: false,
            held: Vec::new(),
            wakes: Vec::new(),
        }
    }

    fn step<R>(&mut self, step: impl FnOnce(&mut Group, Millis, &mut Vec<Effect>) -> R) -> R {
        let mut effects = Vec::new();
        let result = step(&mut self.group, self.now, &mut effects);
        let mut effects = std::collections::VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Join(ticket, answer) => {
                    assert_eq!(self.joins.insert(ticket, answer), None, "answered twice");
                }
                Effect::Sync(ticket, answer) => {
                    assert_eq!(self.syncs.insert(ticket, answer), None, "answered twice");
                }
                Effect::WakeAt(at) => self.wakes.push(at),
                Effect::Store(record, then) => {
                    self.stored.push(record);
                    if self.hold_writes {
                        self.held.push(then);
                    } else {
                        let mut more = Vec::new();
                        self.group.stored(self.now, then, Ok(()), &mut more);
                        effects.extend(more);
                    }
                }
            }
        }
        result
    }

    /// Lets time pass, waking the group whenever it asked for it.
    fn pass(&mut self, millis: Millis) {
        let end = self.now + millis;
        let due = |sim: &Self| sim.wakes.iter().copied().min().filter(|at| *at <= end);
        while let Some(at) = due(self) {
            self.wakes.retain(|wake| *wake != at);
            self.now = self.now.max(at);
            self.step(Group::tick);
        }
        self.now = end;
    }

    fn request(&mut self, member_id: &str, protocols: &[&str]) -> JoinRequest {
        self.tickets += 1;
        JoinRequest {
            ticket: self.tickets,
            member_id: member_id.to_owned(),
            new_member_id: format!("m{}", self.tickets),
            instance_id: None,
            requires_known_member_id: false,
            supports_skip_assignment: true,
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            rebalance_timeout_ms: REBALANCE,
            session_timeout_ms: SESSION,
            protocol_type: "consumer".to_owned(),
            protocols: protocols
                .iter()
                .map(|name| Protocol {
                    name: (*name).to_owned(),
                    metadata: Bytes::copy_from_slice(name.as_bytes()),
                })
                .collect(),
        }
    }

    fn send(&mut self, request: JoinRequest) -> Ticket {
        let ticket = request.ticket;
        self.step(|group, now, effects| group.join(now, request, effects));
        ticket
    }

    fn join(&mut self, member_id: &str) -> Ticket {
        let request = self.request(member_id, &["range"]);
        self.send(request)
    }

    fn join_static(&mut self, instance: &str) -> Ticket {
        let mut request = self.request("", &["range"]);
        request.instance_id = Some(instance.to_owned());
        self.send(request)
    }

    fn joined(&self, ticket: Ticket) -> &JoinAnswer {
        let answer = self.joins.get(&ticket).expect("not answered");
        assert_eq!(answer.error, None);
        answer
    }

    fn refusal(&self, ticket: Ticket) -> ResponseError {
        self.joins
            .get(&ticket)
            .and_then(|answer| answer.error)
            .expect("not refused")
    }

    fn sync(&mut self, member_id: &str, generation: i32, given: &[(&str, &str)]) -> Ticket {
        self.tickets += 1;
        let request = SyncRequest {
            ticket: self.tickets,
            member_id: member_id.to_owned(),
            instance_id: None,
            generation,
            protocol_type: None,
            protocol: None,
            assignments: given
                .iter()
                .map(|(id, it)| ((*id).to_owned(), Bytes::copy_from_slice(it.as_bytes())))
                .collect(),
        };
        self.step(|group, now, effects| group.sync(now, request, effects));
        self.tickets
    }

    fn assignment(&self, ticket: Ticket) -> Result<&[u8], ResponseError> {
        let answer = self.syncs.get(&ticket).expect("not answered");
        answer.error.map_or(Ok(&answer.assignment), Err)
    }

    fn heartbeat(&mut self, member_id: &str, generation: i32) -> Result<(), ResponseError> {
        self.step(|group, now, effects| group.heartbeat(now, member_id, None, generation, effects))
    }

    fn leave(&mut self, member_id: &str) -> Result<(), ResponseError> {
        let leaver = Leaver {
            member_id: member_id.to_owned(),
            instance_id: None,
        };
        self.step(|group, now, effects| group.leave(now, &[leaver], effects))
            .remove(0)
    }

    fn commit(&mut self, member_id: &str, generation: i32) -> Result<(), ResponseError> {
        let committer = Committer {
            member_id,
            instance_id: None,
            generation,
        };
        self.step(|group, now, effects| group.check_commit(now, committer, effects))
    }

    /// Two members with an assignment each: their ids and the generation.
    fn stable_pair(&mut self) -> (String, String, i32) {
        let (first, second) = (self.join(""), self.join(""));
        self.pass(2 * DELAY);
        let generation = self.joined(first).generation;
        let (a, b) = (
            self.joined(first).member_id.clone(),
            self.joined(second).member_id.clone(),
        );
        self.sync(&b, generation, &[]);
        self.sync(&a, generation, &[(&a, "0"), (&b, "1")]);
        assert_eq!(self.group.state(), State::Stable);
        (a, b, generation)
    }
}

#[test]
fn two_members_join_and_share() {
    let mut sim = Sim::new();
    let first = sim.join("");
    sim.pass(1_000);
    let second = sim.join("");
    assert!(sim.joins.is_empty(), "the initial delay is not over");
    sim.pass(2 * DELAY);
    let (leader, follower) = (sim.joined(first).clone(), sim.joined(second).clone());
    assert_eq!((leader.generation, follower.generation), (1, 1));
    assert_eq!(leader.leader, leader.member_id);
    assert_eq!(follower.leader, leader.member_id);
    assert_eq!(leader.members.len(), 2);
    assert_eq!(leader.members[0].metadata, "range");
    assert!(follower.members.is_empty());
    assert_eq!(leader.protocol.as_deref(), Some("range"));

    let (a, b) = (leader.member_id, follower.member_id);
    let early = sim.sync(&b, 1, &[]);
    assert!(sim.syncs.is_empty(), "the leader has not synced");
    let given = sim.sync(&a, 1, &[(&a, "0"), (&b, "1"), ("stranger", "2")]);
    assert_eq!(sim.assignment(given), Ok(&b"0"[..]));
    assert_eq!(sim.assignment(early), Ok(&b"1"[..]));
    assert_eq!(sim.group.state(), State::Stable);
    let record = sim.stored.last().unwrap();
    assert_eq!((record.generation, record.members.len()), (1, 2));
    assert_eq!(record.members[1].assignment, "1");
    let again = sim.sync(&b, 1, &[]);
    assert_eq!(sim.assignment(again), Ok(&b"1"[..]));
}

#[test]
fn the_initial_delay_grows_with_members_but_ends_with_the_rebalance_timeout() {
    let mut sim = Sim::new();
    let mut first = sim.request("", &["range"]);
    first.rebalance_timeout_ms = 5_000;
    let first = sim.send(first);
    sim.pass(2_000);
    let mut second = sim.request("", &["range"]);
    second.rebalance_timeout_ms = 5_000;
    sim.send(second);
    sim.pass(2_000);
    assert!(
        sim.joins.is_empty(),
        "a member joined in the first step, so there is a second"
    );
    sim.pass(1_000);
    assert_eq!(
        sim.joined(first).generation,
        1,
        "two steps of 3 s are cut to 5 s"
    );
}

#[test]
fn an_assignment_is_answered_after_it_is_stored() {
    let mut sim = Sim::new();
    let join = sim.join("");
    sim.pass(2 * DELAY);
    let a = sim.joined(join).member_id.clone();
    sim.hold_writes = true;
    let sync = sim.sync(&a, 1, &[(&a, "0")]);
    assert!(sim.syncs.is_empty());
    assert_eq!(sim.commit(&a, 1), Err(ResponseError::RebalanceInProgress));
    let then = sim.held.remove(0);
    sim.step(|group, now, effects| {
        group.stored(
            now,
            then,
            Err(ResponseError::CoordinatorNotAvailable),
            effects,
        );
    });
    assert_eq!(
        sim.assignment(sync),
        Err(ResponseError::CoordinatorNotAvailable)
    );
    assert_eq!(sim.group.state(), State::PreparingRebalance);
    let rejoin = sim.join(&a);
    assert_eq!(sim.joined(rejoin).generation, 2);
    let sync = sim.sync(&a, 2, &[(&a, "0")]);
    let then = sim.held.remove(0);
    sim.step(|group, now, effects| group.stored(now, then, Ok(()), effects));
    assert_eq!(sim.assignment(sync), Ok(&b"0"[..]));
}

#[test]
fn a_third_member_starts_a_rebalance_and_ids_stay() {
    let mut sim = Sim::new();
    let (a, b, _) = sim.stable_pair();
    let third = sim.join("");
    assert_eq!(
        sim.heartbeat(&a, 1),
        Err(ResponseError::RebalanceInProgress)
    );
    assert_eq!(
        sim.commit(&a, 1),
        Ok(()),
        "what was consumed may still be committed"
    );
    let first = sim.join(&a);
    assert!(!sim.joins.contains_key(&first));
    // A fourth arrives in the middle of it.
    let fourth = sim.join("");
    let second = sim.join(&b);
    for (ticket, id) in [(first, &a), (second, &b)] {
        assert_eq!(sim.joined(ticket).member_id, *id);
        assert_eq!(sim.joined(ticket).generation, 2);
    }
    assert_eq!(
        sim.joined(first).leader,
        a,
        "the leader stays while it is there"
    );
    assert_eq!(sim.joined(first).members.len(), 4);
    assert_eq!(sim.joined(third).generation, 2);
    assert_eq!(sim.joined(fourth).generation, 2);
    assert_eq!(sim.heartbeat(&a, 1), Err(ResponseError::IllegalGeneration));
    assert_eq!(sim.heartbeat(&a, 2), Ok(()));
}

#[test]
fn members_that_do_not_rejoin_in_time_are_dropped() {
    let mut sim = Sim::new();
    let (a, b, _) = sim.stable_pair();
    let third = sim.join("");
    sim.join(&a);
    // The other one is alive, but does not rejoin.
    for _ in 0..12 {
        let _ = sim.heartbeat(&b, 1);
        sim.pass(REBALANCE / 12);
    }
    assert_eq!(sim.joined(third).generation, 2);
    assert_eq!(sim.heartbeat(&b, 1), Err(ResponseError::UnknownMemberId));
    assert_eq!(sim.group.len(), 2);
}

#[test]
fn a_leaver_makes_the_others_rejoin_and_the_last_one_empties_the_group() {
    let mut sim = Sim::new();
    let (a, b, _) = sim.stable_pair();
    assert_eq!(sim.leave(&a), Ok(()));
    assert_eq!(sim.leave(&a), Err(ResponseError::UnknownMemberId));
    assert_eq!(
        sim.heartbeat(&b, 1),
        Err(ResponseError::RebalanceInProgress)
    );
    let rejoin = sim.join(&b);
    assert_eq!(sim.joined(rejoin).leader, b);
    assert_eq!(sim.leave(&b), Ok(()));
    assert_eq!(
        (sim.group.state(), sim.group.generation()),
        (State::Empty, 3)
    );
    let record = sim.stored.last().unwrap();
    assert_eq!((record.generation, record.members.len()), (3, 0));
    assert!(
        !sim.group.is_unused(),
        "its generations must not begin anew"
    );
}

#[test]
fn a_silent_member_expires() {
    let mut sim = Sim::new();
    let (a, b, _) = sim.stable_pair();
    sim.pass(SESSION / 2);
    assert_eq!(sim.heartbeat(&a, 1), Ok(()));
    sim.pass(SESSION / 2 + 1);
    assert_eq!(sim.heartbeat(&b, 1), Err(ResponseError::UnknownMemberId));
    assert_eq!(
        sim.heartbeat(&a, 1),
        Err(ResponseError::RebalanceInProgress)
    );
}

#[test]
fn members_that_joined_and_never_sync_are_dropped() {
    let mut sim = Sim::new();
    let (first, second) = (sim.join(""), sim.join(""));
    sim.pass(2 * DELAY);
    let (a, b) = (
        sim.joined(first).member_id.clone(),
        sim.joined(second).member_id.clone(),
    );
    sim.sync(&a, 1, &[(&a, "0"), (&b, "1")]);
    for _ in 0..12 {
        let _ = sim.heartbeat(&a, 1);
        let _ = sim.heartbeat(&b, 1);
        sim.pass(REBALANCE / 12);
    }
    assert_eq!(sim.heartbeat(&b, 1), Err(ResponseError::UnknownMemberId));
    assert_eq!(
        sim.heartbeat(&a, 1),
        Err(ResponseError::RebalanceInProgress)
    );
}

#[test]
fn a_member_without_an_id_is_told_one_first() {
    let mut sim = Sim::new();
    let mut request = sim.request("", &["range"]);
    request.requires_known_member_id = true;
    let ticket = sim.send(request);
    assert_eq!(sim.refusal(ticket), ResponseError::MemberIdRequired);
    let id = sim.joins[&ticket].member_id.clone();
    assert!(sim.group.is_empty() && !sim.group.is_unused());
    let ticket = sim.join(&id);
    sim.pass(2 * DELAY);
    assert_eq!(sim.joined(ticket).member_id, id);

    // An id that is not used expires, and a rebalance does not wait for it any longer.
    let mut request = sim.request("", &["range"]);
    request.requires_known_member_id = true;
    let unused = sim.send(request);
    let unused = sim.joins[&unused].member_id.clone();
    sim.join("");
    let rejoin = sim.join(&id);
    assert!(
        !sim.joins.contains_key(&rejoin),
        "somebody else is expected"
    );
    sim.pass(SESSION);
    assert_eq!(sim.joined(rejoin).generation, 2);
    let late = sim.join(&unused);
    assert_eq!(sim.refusal(late), ResponseError::UnknownMemberId);
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    let mut sim = Sim::new();
    let (first, second) = (sim.join_static("one"), sim.join_static("two"));
    sim.pass(2 * DELAY);
    let (a, b) = (
        sim.joined(first).member_id.clone(),
        sim.joined(second).member_id.clone(),
    );
    sim.sync(&a, 1, &[(&a, "0"), (&b, "1")]);
    sim.sync(&b, 1, &[]);

    // The leader restarts: it goes on leading, with the assignment as it is.
    let back = sim.join_static("one");
    let answer = sim.joined(back).clone();
    let new = answer.member_id.clone();
    assert_ne!(new, a);
    assert_eq!(answer.generation, 1);
    assert_eq!(
        (answer.leader.as_str(), answer.skip_assignment),
        (new.as_str(), true)
    );
    assert_eq!(answer.members.len(), 2);
    assert_eq!(sim.stored.last().unwrap().members.len(), 2);
    let sync = sim.sync(&new, 1, &[]);
    assert_eq!(sim.assignment(sync), Ok(&b"0"[..]));
    assert_eq!(sim.heartbeat(&b, 1), Ok(()));

    // The one that it replaces is fenced.
    let fenced = sim
        .step(|group, now, effects| group.heartbeat(now, &a, Some("one"), 1, effects))
        .unwrap_err();
    assert_eq!(fenced, ResponseError::FencedInstanceId);
    let mut zombie = sim.request(&a, &["range"]);
    zombie.instance_id = Some("one".to_owned());
    let zombie = sim.send(zombie);
    assert_eq!(sim.refusal(zombie), ResponseError::FencedInstanceId);

    // An older client is told the old leader, so that it does not take itself for it.
    let mut older = sim.request("", &["range"]);
    older.instance_id = Some("one".to_owned());
    older.supports_skip_assignment = false;
    let older = sim.send(older);
    assert_eq!(sim.joined(older).leader, new);
    assert!(sim.joined(older).members.is_empty());

    // Its session ends like any other's.
    sim.pass(SESSION + 1);
    assert!(sim.group.is_empty());
}

#[test]
fn a_static_member_that_waits_is_fenced_by_its_successor() {
    let mut sim = Sim::new();
    let first = sim.join_static("one");
    let second = sim.join_static("one");
    assert_eq!(sim.refusal(first), ResponseError::FencedInstanceId);
    sim.pass(2 * DELAY);
    assert_eq!(sim.joined(second).members.len(), 1);
    assert_eq!(sim.joined(second).leader, sim.joined(second).member_id);
}

#[test]
fn an_absent_static_member_is_kept_through_a_rebalance() {
    let mut sim = Sim::new();
    let mut patient = sim.request("", &["range"]);
    patient.instance_id = Some("one".to_owned());
    patient.session_timeout_ms = 10 * REBALANCE;
    let (first, second) = (sim.send(patient), sim.join(""));
    sim.pass(2 * DELAY);
    let (a, b) = (
        sim.joined(first).member_id.clone(),
        sim.joined(second).member_id.clone(),
    );
    sim.sync(&a, 1, &[(&a, "0"), (&b, "1")]);
    sim.sync(&b, 1, &[]);
    let third = sim.join("");
    let rejoin = sim.join(&b);
    sim.pass(REBALANCE);
    assert_eq!(sim.joined(third).generation, 2);
    assert_eq!(
        sim.joined(rejoin).leader,
        b,
        "a leader that is absent can't lead"
    );
    assert_eq!(sim.joined(rejoin).members.len(), 3);

    let joiner = sim.joined(third).member_id.clone();
    sim.sync(&b, 2, &[(&a, "0"), (&b, "1"), (&joiner, "2")]);
    sim.sync(&joiner, 2, &[]);
    for _ in 0..REBALANCE / SESSION {
        sim.pass(SESSION - 1);
        for id in [&b, &joiner] {
            assert_eq!(sim.heartbeat(id, 2), Ok(()));
        }
    }
    sim.pass(SESSION - 1);
    assert_eq!(
        sim.heartbeat(&b, 2),
        Err(ResponseError::RebalanceInProgress),
        "but not for longer than it may take to sync"
    );
    assert_eq!(sim.group.len(), 2);
}

#[test]
fn protocols_are_chosen_by_votes_and_must_fit() {
    let mut sim = Sim::new();
    let requests = [
        sim.request("", &["range", "roundrobin"]),
        sim.request("", &["roundrobin", "range", "sticky"]),
        sim.request("", &["roundrobin", "range"]),
    ];
    let tickets = requests.map(|request| sim.send(request));
    let misfit = sim.request("", &["sticky"]);
    let misfit = sim.send(misfit);
    assert_eq!(
        sim.refusal(misfit),
        ResponseError::InconsistentGroupProtocol
    );
    let mut connect = sim.request("", &["range"]);
    connect.protocol_type = "connect".to_owned();
    let connect = sim.send(connect);
    assert_eq!(
        sim.refusal(connect),
        ResponseError::InconsistentGroupProtocol
    );
    sim.pass(4 * DELAY);
    assert_eq!(
        sim.joined(tickets[0]).protocol.as_deref(),
        Some("roundrobin")
    );

    let id = sim.joined(tickets[0]).member_id.clone();
    let mut request = SyncRequest {
        ticket: 100,
        member_id: id,
        instance_id: None,
        generation: 1,
        protocol_type: Some("consumer".to_owned()),
        protocol: Some("range".to_owned()),
        assignments: Vec::new(),
    };
    sim.step(|group, now, effects| group.sync(now, request.clone(), effects));
    assert_eq!(
        sim.assignment(100),
        Err(ResponseError::InconsistentGroupProtocol)
    );
    request.ticket = 101;
    request.protocol = Some("roundrobin".to_owned());
    sim.step(|group, now, effects| group.sync(now, request, effects));
    assert_eq!(sim.assignment(101), Ok(&b""[..]));
}

#[test]
fn a_follower_that_lost_its_answer_rejoins_without_a_rebalance_but_a_leader_forces_one() {
    let mut sim = Sim::new();
    let (a, b, _) = sim.stable_pair();
    let rejoin = sim.join(&b);
    assert_eq!(sim.joined(rejoin).generation, 1);
    assert_eq!(sim.group.state(), State::Stable);
    sim.join(&a);
    assert_eq!(sim.group.state(), State::PreparingRebalance);
    let changed = sim.request(&b, &["range", "sticky"]);
    let changed = sim.send(changed);
    assert_eq!(sim.joined(changed).generation, 2);
    // While the assignment is awaited, the same request gets the same answer.
    let lost = sim.join(&a);
    assert_eq!(
        (sim.joined(lost).generation, sim.joined(lost).members.len()),
        (2, 2)
    );
}

#[test]
fn a_join_that_is_repeated_replaces_the_first() {
    let mut sim = Sim::new();
    let (a, _, _) = sim.stable_pair();
    sim.join("");
    let lost = sim.join(&a);
    let again = sim.join(&a);
    assert_eq!(sim.refusal(lost), ResponseError::RebalanceInProgress);
    assert!(!sim.joins.contains_key(&again));
}

#[test]
fn strangers_and_stale_generations_are_refused() {
    let mut sim = Sim::new();
    let (a, b, generation) = sim.stable_pair();
    assert_eq!(
        sim.heartbeat("stranger", generation),
        Err(ResponseError::UnknownMemberId)
    );
    assert_eq!(sim.commit(&a, generation), Ok(()));
    assert_eq!(
        sim.commit(&a, generation - 1),
        Err(ResponseError::IllegalGeneration)
    );
    assert_eq!(
        sim.commit(&a, generation + 1),
        Err(ResponseError::IllegalGeneration)
    );
    assert_eq!(
        sim.commit("stranger", generation),
        Err(ResponseError::UnknownMemberId)
    );
    assert_eq!(
        sim.commit("", -1),
        Err(ResponseError::UnknownMemberId),
        "the group has members"
    );
    let stale = sim.sync(&b, generation + 1, &[]);
    assert_eq!(sim.assignment(stale), Err(ResponseError::IllegalGeneration));
    let stranger = sim.join("stranger");
    assert_eq!(sim.refusal(stranger), ResponseError::UnknownMemberId);

    let mut simple = Sim::new();
    assert_eq!(simple.commit("", -1), Ok(()));
    assert_eq!(
        simple.commit("m", 3),
        Err(ResponseError::GroupIdNotFound),
        "there is no such group"
    );
}

#[test]
fn a_full_group_takes_nobody_else() {
    let mut sim = Sim::with(Limits {
        max_size: 2,
        initial_rebalance_delay_ms: 0,
        new_member_join_timeout_ms: 300_000,
        max_pending: 100,
        max_subscription_bytes: 1 << 20,
    });
    let first = sim.join("");
    let a = sim.joined(first).member_id.clone();
    let second = sim.join("");
    sim.join(&a);
    assert_eq!(sim.joined(second).generation, 2);
    let third = sim.join("");
    assert_eq!(sim.refusal(third), ResponseError::GroupMaxSizeReached);
    let rejoin = sim.join(&a);
    assert_eq!(sim.joined(rejoin).generation, 2, "members of it still may");
}

#[test]
fn a_restored_group_goes_on_with_its_generation() {
    let mut sim = Sim::new();
    let (a, b, generation) = sim.stable_pair();
    let record = sim.stored.last().unwrap().clone();
    let limits = sim.group.limits;
    let mut restored = Sim::with(limits);
    restored.now = 50;
    restored.group = restored.step(|_, now, effects| Group::restore(limits, now, record, effects));
    assert_eq!(restored.heartbeat(&a, generation), Ok(()));
    let sync = restored.sync(&b, generation, &[]);
    assert_eq!(restored.assignment(sync), Ok(&b"1"[..]));
    let rejoin = restored.join(&b);
    assert_eq!(restored.joined(rejoin).leader, a);
    restored.pass(SESSION + 1);
    assert!(
        restored.group.is_empty(),
        "sessions run after a restart too"
    );
    assert_eq!(restored.group.generation(), generation + 1);
}

#[test]
fn ids_that_nobody_uses_are_bounded_and_the_oldest_goes_first() {
    let mut sim = Sim::new();
    let ask = |sim: &mut Sim| {
        let mut request = sim.request("", &["range"]);
        request.requires_known_member_id = true;
        let ticket = sim.send(request);
        assert_eq!(sim.refusal(ticket), ResponseError::MemberIdRequired);
        sim.now += 1;
        sim.joins[&ticket].member_id.clone()
    };
    let first = ask(&mut sim);
    let second = ask(&mut sim);
    for _ in 0..sim.group.limits.max_pending - 1 {
        ask(&mut sim);
    }
    assert_eq!(sim.group.pending(), sim.group.limits.max_pending);
    let late = sim.join(&first);
    assert_eq!(sim.refusal(late), ResponseError::UnknownMemberId);
    sim.join(&second);
    assert_eq!(sim.group.len(), 1);
}

#[test]
fn a_group_holds_no_more_of_subscriptions_than_it_may() {
    let mut sim = Sim::new();
    let limit = sim.group.limits.max_subscription_bytes;
    let with = |sim: &mut Sim, member_id: &str, bytes: usize| {
        let mut request = sim.request(member_id, &["range"]);
        request.protocols[0].metadata = vec![0; bytes].into();
        sim.send(request)
    };
    let first = with(&mut sim, "", limit / 2);
    sim.pass(2 * DELAY);
    let id = sim.joined(first).member_id.clone();
    let second = with(&mut sim, "", limit / 2);
    assert_eq!(sim.refusal(second), ResponseError::GroupMaxSizeReached);
    let smaller = with(&mut sim, &id, limit / 4);
    assert_eq!(sim.joined(smaller).generation, 2);
    let second = with(&mut sim, "", limit / 2);
    assert!(!sim.joins.contains_key(&second), "there is room for it now");
}

#[test]
fn a_restored_group_that_is_too_large_rebalances() {
    let mut sim = Sim::new();
    let (a, _, generation) = sim.stable_pair();
    let record = sim.stored.last().unwrap().clone();
    let limits = Limits {
        max_size: 1,
        ..sim.group.limits
    };
    let mut restored = Sim::with(limits);
    restored.group = restored.step(|_, now, effects| Group::restore(limits, now, record, effects));
    assert_eq!(
        restored.heartbeat(&a, generation),
        Err(ResponseError::RebalanceInProgress)
    );
}

#[test]
fn a_group_whose_record_is_removed_begins_anew_unless_it_has_members() {
    let mut sim = Sim::new();
    let (a, b, generation) = sim.stable_pair();
    sim.group.record_removed();
    assert_eq!(sim.heartbeat(&a, generation), Ok(()));
    for id in [&a, &b] {
        assert_eq!(sim.leave(id), Ok(()));
    }
    sim.pass(REBALANCE);
    assert!(sim.group.has_record());
    sim.group.record_removed();
    assert!(sim.group.is_unused());
    assert_eq!(sim.group.generation(), 0);
}

#[test]
fn an_assignment_of_an_earlier_group_of_that_name_answers_nobody() {
    let mut sim = Sim::new();
    sim.hold_writes = true;
    let join = sim.join("");
    sim.pass(2 * DELAY);
    let id = sim.joined(join).member_id.clone();
    sim.sync(&id, 1, &[(&id, "old")]);
    let early = sim.held.remove(0);
    assert_eq!(sim.leave(&id), Ok(()));
    sim.group.record_removed();
    let join = sim.join("");
    sim.pass(2 * DELAY);
    let id = sim.joined(join).member_id.clone();
    assert_eq!(sim.joined(join).generation, 1, "the same once more");
    let sync = sim.sync(&id, 1, &[(&id, "new")]);
    sim.step(|group, now, effects| group.stored(now, early, Ok(()), effects));
    assert!(!sim.syncs.contains_key(&sync), "it is not stored yet");
}
