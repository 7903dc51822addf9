//! In which order messages leave.

use super::*;
use proptest::prelude::*;

fn person(n: usize) -> Person {
    Person::parse(&format!("{}", 5_511_900_000_000_u64 + n as u64)).unwrap()
}

fn lid(n: usize) -> Person {
    Person::parse(&format!("{n}@lid")).unwrap()
}

fn start(person: &Person, row: i64) -> Next {
    Next::Start(person.clone(), row)
}

#[test]
fn one_after_the_other_to_one_and_at_once_to_several() {
    let (mut lane, now, [ana, bruno]) = (SendQueue::default(), Instant::now(), [person(1), person(2)]);
    lane.push(&ana, 1);
    lane.push(&ana, 2);
    lane.push(&bruno, 3);
    assert_eq!(lane.next(now), start(&ana, 1));
    assert_eq!(lane.next(now), start(&bruno, 3));
    assert_eq!(lane.next(now), Next::Nothing, "the second one to the same person waits");
    lane.finished(&ana, 1, After::Done);
    assert_eq!(lane.next(now), start(&ana, 2));
    assert_eq!(lane.len(), 2);
}

#[test]
fn one_that_has_to_wait_holds_those_behind_it_and_nobody_else() {
    let (mut lane, now, [ana, bruno]) = (SendQueue::default(), Instant::now(), [person(1), person(2)]);
    let later = now + Duration::from_secs(5);
    lane.push(&ana, 1);
    lane.push(&ana, 2);
    assert_eq!(lane.next(now), start(&ana, 1));
    lane.finished(&ana, 1, After::Again(later));
    lane.push(&bruno, 3);
    assert_eq!(lane.next(now), start(&bruno, 3));
    assert_eq!(lane.next(now), Next::At(later));
    assert_eq!(lane.next(later), start(&ana, 1), "the same one again, before the second");
    lane.finished(&ana, 1, After::Again(later + Duration::from_secs(5)));
    lane.hurry_all();
    assert_eq!(lane.next(later), start(&ana, 1));
}

#[test]
fn a_place_is_reserved_only_where_nothing_waits() {
    let (mut lane, now, [ana, bruno]) = (SendQueue::default(), Instant::now(), [person(1), person(2)]);
    assert!(lane.reserve(&ana, now));
    assert!(!lane.reserve(&ana, now), "one at a time to one person");
    lane.push(&ana, 8);
    lane.fill(&ana, 7);
    lane.finished(&ana, 7, After::Done);
    assert!(!lane.reserve(&bruno, now), "who waits goes first");
    assert_eq!(lane.next(now), start(&ana, 8));
    assert!(lane.reserve(&bruno, now));
    lane.release(&bruno);
    assert_eq!(lane.len(), 1);
}

#[test]
fn no_faster_than_the_pace() {
    let (now, second) = (Instant::now(), Duration::from_secs(1));
    let mut lane = SendQueue::new(Pace { interval: second, jitter: Duration::ZERO });
    lane.push(&person(1), 1);
    lane.push(&person(2), 2);
    assert_eq!(lane.next(now), start(&person(1), 1));
    assert_eq!(lane.next(now), Next::At(now + second));
    assert!(!lane.reserve(&person(3), now));
    assert_eq!(lane.next(now + second), start(&person(2), 2));
}

#[test]
fn no_more_at_once_than_the_window() {
    let (mut lane, now) = (SendQueue::default(), Instant::now());
    for n in 0..WINDOW + 1 {
        lane.push(&person(n), n as i64);
    }
    for n in 0..WINDOW {
        assert_eq!(lane.next(now), start(&person(n), n as i64));
    }
    assert_eq!(lane.next(now), Next::Nothing);
    lane.finished(&person(0), 0, After::Done);
    assert_eq!(lane.next(now), start(&person(WINDOW), WINDOW as i64));
}

#[test]
fn whose_media_is_uploaded_keeps_only_those_to_the_same_person_waiting() {
    let (mut lane, now) = (SendQueue::default(), Instant::now());
    for n in 0..WINDOW + ASIDE + 2 {
        lane.push(&person(n), n as i64);
    }
    lane.push(&person(0), 1000);
    for n in 0..WINDOW + ASIDE {
        assert_eq!(lane.next(now), start(&person(n), n as i64));
        assert_eq!(lane.step_aside(), n < ASIDE, "{n}");
    }
    assert_eq!(lane.next(now), Next::Nothing);
    lane.step_back();
    lane.finished(&person(1), 1, After::Done);
    assert_eq!(lane.next(now), Next::Nothing, "it came back to no place, and left none");
    lane.finished(&person(ASIDE), ASIDE as i64, After::Done);
    assert_eq!(lane.next(now), start(&person(WINDOW + ASIDE), (WINDOW + ASIDE) as i64));
}

#[test]
fn what_was_given_up_does_not_leave() {
    let (mut lane, now, ana) = (SendQueue::default(), Instant::now(), person(1));
    lane.push(&ana, 1);
    lane.push(&ana, 2);
    lane.remove(&ana, 1);
    assert_eq!((lane.len(), lane.next(now)), (1, start(&ana, 2)));
    lane.remove(&ana, 2);
    assert_eq!(lane.len(), 1, "it is on its way");
    lane.finished(&ana, 2, After::Done);
    assert_eq!((lane.len(), lane.next(now)), (0, Next::Nothing));
}

#[test]
fn who_has_two_turns_by_mistake_uses_one() {
    let (mut lane, now, ana) = (SendQueue::default(), Instant::now(), person(1));
    lane.push(&ana, 1);
    lane.remove(&ana, 1);
    // The turn of the one that was given up is still there when the next one takes its own.
    lane.push(&ana, 2);
    lane.push(&ana, 3);
    assert_eq!(lane.next(now), start(&ana, 2));
    assert_eq!(lane.next(now), Next::Nothing, "one of hers is on its way");
    lane.finished(&ana, 2, After::Done);
    assert_eq!(lane.next(now), start(&ana, 3));
}

#[test]
fn two_names_of_one_person_are_one_queue_from_when_that_is_known() {
    let (mut lane, now, number, lid) = (SendQueue::default(), Instant::now(), person(1), lid(1));
    lane.push(&lid, 2);
    lane.push(&number, 1);
    lane.push(&lid, 4);
    lane.push(&number, 3);
    lane.join(&number, &lid);
    for row in 1..=4 {
        let Next::Start(name, next) = lane.next(now) else { panic!("one is due") };
        assert_eq!((next, lane.next(now), lane.is_first(&lid, row)), (row, Next::Nothing, true));
        lane.finished(&name, row, After::Done);
    }
    assert_eq!((lane.len(), lane.aliases.len()), (0, 0), "nothing is remembered of who has no messages");
}

#[test]
fn strangers_are_those_who_come_before_and_have_one_name() {
    let (mut lane, now) = (SendQueue::default(), Instant::now());
    for (row, name) in [person(1), person(2), lid(3), person(4), person(5)].iter().enumerate() {
        lane.push(name, row as i64 + 1);
    }
    assert_eq!(lane.next(now), start(&person(1), 1));
    lane.join(&person(2), &lid(2));
    assert_eq!(lane.strangers_before(5, 9), [person(1), person(4)]);
    assert_eq!(lane.strangers_before(9, 2), [person(1), person(4)]);
    lane.finished(&person(1), 1, After::Done);
    lane.join(&lid(4), &person(4));
    assert!(lane.strangers_before(5, 9).is_empty());
}

#[test]
fn what_is_on_its_way_too_early_goes_back() {
    let (mut lane, now, number, lid) = (SendQueue::default(), Instant::now(), person(1), lid(1));
    let later = now + Duration::from_secs(60);
    lane.push(&number, 1);
    assert_eq!(lane.next(now), start(&number, 1));
    lane.finished(&number, 1, After::Again(later));
    lane.push(&lid, 2);
    assert_eq!(lane.next(now), start(&lid, 2));
    assert!(lane.is_first(&lid, 2), "as far as anybody knows");
    lane.join(&lid, &number);
    assert!(!lane.is_first(&lid, 2));
    lane.finished(&lid, 2, After::Again(now));
    let Next::Start(name, 1) = lane.next(now) else { panic!("the first one goes") };
    assert_eq!(lane.next(now), Next::Nothing);
    // The first one has to wait, and the second one with it.
    lane.finished(&name, 1, After::Again(later));
    assert_eq!((lane.next(now), lane.len()), (Next::At(later), 2));
    assert!(matches!(lane.next(later), Next::Start(_, 1)));
}

#[test]
fn both_are_on_their_way_when_it_turns_out_that_they_are_to_one_person() {
    let (mut lane, now, number, lid) = (SendQueue::default(), Instant::now(), person(1), lid(1));
    assert!(lane.reserve(&number, now));
    lane.fill(&number, 1);
    assert!(lane.reserve(&lid, now));
    lane.fill(&lid, 2);
    lane.join(&number, &lid);
    assert!(lane.is_first(&number, 1) && !lane.is_first(&lid, 2));
    assert!(!lane.reserve(&lid, now) && !lane.reserve(&number, now));
    lane.finished(&lid, 2, After::Again(now));
    assert_eq!((lane.next(now), lane.len()), (Next::Nothing, 2), "it waits for the first");
    lane.finished(&number, 1, After::Done);
    assert!(matches!(lane.next(now), Next::Start(_, 2)));
    lane.clear();
    assert_eq!(lane.len(), 1);
    lane.finished(&lid, 2, After::Done);
    assert_eq!((lane.len(), lane.queues.len(), lane.aliases.len()), (0, 0, 0));
}

proptest! {
    /// Whatever happens: to one person in order, each once, none forgotten. Whoever has two names has them from a moment
    /// on that may be any.
    #[test]
    fn in_order_and_complete(steps in prop::collection::vec((0_usize..3, any::<bool>(), 0_u8..8, 0_usize..4), 1..250)) {
        let (mut lane, mut now, mut row) = (SendQueue::default(), Instant::now(), 0);
        let name_of = |n: usize, by_lid: bool| if by_lid { lid(n) } else { person(n) };
        // What has not left, by person and name, and what is on its way.
        let mut waiting: HashMap<(usize, bool), BTreeSet<i64>> = HashMap::new();
        let mut away: Vec<(Person, i64)> = Vec::new();
        let mut joined = [false; 3];
        fn leave(lane: &mut SendQueue, away: &mut Vec<(Person, i64)>, at: usize, now: Instant,
                 waiting: &mut HashMap<(usize, bool), BTreeSet<i64>>, joined: [bool; 3], fails: bool) {
            if away.is_empty() {
                return;
            }
            let (name, row) = away.remove(at % away.len());
            if fails || !lane.is_first(&name, row) {
                return lane.finished(&name, row, After::Again(now + Duration::from_secs(u64::from(fails))));
            }
            let (&(n, by_lid), _) = waiting.iter().find(|(_, rows)| rows.contains(&row)).expect("it has not left");
            let others = if joined[n] { waiting.get(&(n, !by_lid)) } else { None };
            let first = [waiting.get(&(n, by_lid)), others].into_iter().flatten().filter_map(BTreeSet::first).min();
            assert_eq!(first, Some(&row), "its turn");
            waiting.get_mut(&(n, by_lid)).unwrap().remove(&row);
            lane.finished(&name, row, After::Done);
        }
        for (n, by_lid, step, at) in steps {
            let name = name_of(n, by_lid);
            match step {
                0 | 1 => {
                    row += 1;
                    lane.push(&name, row);
                    waiting.entry((n, by_lid)).or_default().insert(row);
                }
                2 if lane.reserve(&name, now) => {
                    row += 1;
                    lane.fill(&name, row);
                    waiting.entry((n, by_lid)).or_default().insert(row);
                    away.push((name, row));
                }
                2..=4 => if let Next::Start(name, row) = lane.next(now) {
                    prop_assert!(!away.iter().any(|(_, other)| *other == row));
                    away.push((name, row));
                },
                5 => leave(&mut lane, &mut away, at, now, &mut waiting, joined, false),
                6 => leave(&mut lane, &mut away, at, now, &mut waiting, joined, true),
                _ => {
                    lane.join(&name_of(n, by_lid), &name_of(n, !by_lid));
                    joined[n] = true;
                }
            }
            // Two names are remembered as long as there are messages to one of them.
            for (n, joined) in joined.iter_mut().enumerate() {
                let rows = [true, false].into_iter().filter_map(|by_lid| waiting.get(&(n, by_lid)));
                *joined &= rows.map(BTreeSet::len).sum::<usize>() > 0;
            }
            prop_assert_eq!(lane.len(), waiting.values().map(BTreeSet::len).sum::<usize>());
            now += Duration::from_millis(300);
        }
        for _ in 0..10_000 {
            match lane.next(now) {
                Next::Start(name, row) => away.push((name, row)),
                Next::At(at) => now = at,
                Next::Nothing if away.is_empty() => break,
                Next::Nothing => leave(&mut lane, &mut away, 0, now, &mut waiting, joined, false),
            }
        }
        prop_assert!(waiting.values().all(BTreeSet::is_empty), "{waiting:?}");
        prop_assert_eq!((lane.len(), lane.queues.len(), lane.aliases.len()), (0, 0, 0));
    }
}
