use crate::webhooks::deliver::pause;

#[test]
fn the_pause_grows_and_has_an_end() {
    for (failures, seconds) in [(0, 1.0), (1, 2.0), (5, 32.0), (11, 2048.0), (12, 3600.0), (u32::MAX, 3600.0)] {
        let pause = pause(failures).as_secs_f64();
        assert!((seconds * 0.75..seconds * 1.25).contains(&pause), "{failures}: {pause}");
    }
}
