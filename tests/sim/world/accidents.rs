//! What goes wrong.

use super::*;

impl World {
    pub(super) fn accident(&mut self) -> Result<(), Broken> {
        if self.damages && self.rng.one_in(8) {
            self.damage();
            return Ok(());
        }
        match self.rng.below(20) {
            0..=4 => {
                self.note("kill supervisor", 0);
                if self.rng.one_in(4) && self.sup.as_ref().is_some_and(|sup| !sup.is_read_only()) {
                    self.stale = self.sup.take();
                } else {
                    self.kill_supervisor();
                }
                self.fs.calm();
            }
            5..=7 => {
                self.kill_keeper();
                self.note("kill keeper", 0);
            }
            8 => {
                self.kill_init();
                self.host.init = false;
                self.note("kill init", 0);
            }
            9 => self.host.init = true,
            10..=11 => {
                let way = self.rng.below(3);
                self.reboot(way);
            }
            12..=15 => {
                // A disk that refuses, now or soon, once or for a while.
                for _ in 0..1 + self.rng.below(6) {
                    let (op, way) = (self.fs.ops() + 1 + self.rng.below(30), self.rng.below(6) as u32);
                    self.fs.refuse(op, way);
                }
                self.note("the disk refuses", 0);
            }
            16..=18 => {
                let op = self.fs.ops() + 1 + self.rng.below(12);
                self.fs.crash_at(op);
                self.note("dies at the disk", op);
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn kill_supervisor(&mut self) {
        let Some(sup) = self.sup.take() else { return };
        if let Some(conn) = sup.connection().and_then(|number| self.conns.get_mut(&number)) {
            conn.supervisor_gone = true;
            conn.to_supervisor.clear();
        }
    }

    pub(super) fn kill_keeper(&mut self) {
        if self.keeper.take().is_some() {
            for conn in self.conns.values_mut() {
                conn.keeper_gone = true;
                conn.to_keeper.clear();
            }
            self.conns.retain(|_, conn| !conn.supervisor_gone);
        }
    }

    /// Its children get another parent, which reaps what has ended.
    pub(super) fn kill_init(&mut self) {
        self.host.init = false;
        for proc in self.host.procs.values_mut() {
            if matches!(proc.stage, Stage::Zombie { .. } | Stage::Live | Stage::Forked) {
                proc.unknowable = true;
            }
        }
        self.held_config = None;
    }

    /// 0: the power goes. 1: in order. 2: only the container.
    pub(super) fn reboot(&mut self, way: u64) {
        self.kill_supervisor();
        self.stale = None;
        self.keeper = None;
        self.conns.clear();
        self.oracle.counts.reboots += 1;
        if way == 0 {
            let rng = &mut self.rng;
            self.fs = self.fs.cut(|ways| rng.index(ways));
        } else {
            self.fs.calm();
        }
        self.host.restart(way < 2, way == 0, &mut self.rng);
        self.newest = Generation(0);
        self.held_config = None;
        self.up = false;
        self.note("reboot", way);
    }

    /// Something else writes to the files of the event log, while nobody is there.
    pub(super) fn damage(&mut self) {
        if self.rng.one_in(2) {
            self.reboot(1);
        } else {
            self.kill_supervisor();
            self.stale = None;
            self.fs.calm();
        }
        let files: Vec<(PathBuf, Vec<u8>)> = self
            .fs
            .files()
            .into_iter()
            .filter(|(path, bytes)| {
                (path.starts_with("/s/journal") || path.starts_with("/s/checkpoints")) && !bytes.is_empty()
            })
            .collect();
        let Some((path, bytes)) = self.rng.pick(&files) else { return };
        let (path, mut bytes) = (path.clone(), bytes.clone());
        let at = self.rng.index(bytes.len());
        let n = (1 + self.rng.index(400)).min(bytes.len() - at);
        let how = self.rng.below(5);
        self.oracle.harmless = match how {
            _ if self.oracle.damaged => None,
            0 => Some("J5"),
            _ if path.starts_with("/s/checkpoints") => Some("J14"),
            _ => None,
        };
        match how {
            0 => bytes[at] ^= 1 << self.rng.below(8),
            1 => bytes[at..at + n].fill(0),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..at + n)),
            _ => {
                for byte in &mut bytes[at..at + n] {
                    *byte = self.rng.next() as u8;
                }
            }
        }
        self.fs = self.fs.copy();
        self.fs.put(&path, &bytes);
        self.oracle.damaged = true;
        self.note("damage", at as u64);
    }
}
