//! What the jobs are told to do, and who is killed.

use super::common::job;
use super::common::random::Random;

/// Who is killed in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Case {
    Supervisor,
    Keeper,
    Init,
    SupervisorAndKeeper,
    SupervisorAndInit,
    KeeperAndInit,
    All,
    /// Init as PID 1, and with it everything in its namespace.
    Namespace,
}

impl Case {
    /// The cases outside of a namespace.
    pub const ALL: [Self; 7] = [
        Self::Supervisor,
        Self::Keeper,
        Self::Init,
        Self::SupervisorAndKeeper,
        Self::SupervisorAndInit,
        Self::KeeperAndInit,
        Self::All,
    ];

    /// The roles that are killed.
    pub fn roles(self) -> &'static [&'static str] {
        match self {
            Self::Supervisor => &["supervisor"],
            Self::Keeper => &["keeper"],
            Self::Init | Self::Namespace => &["init"],
            Self::SupervisorAndKeeper => &["supervisor", "keeper"],
            Self::SupervisorAndInit => &["supervisor", "init"],
            Self::KeeperAndInit => &["keeper", "init"],
            Self::All => &["supervisor", "keeper", "init"],
        }
    }

    /// Whether everything can still be known: init and keeper hold everything twice, the supervisor
    /// nothing.
    pub fn knows_all(self) -> bool {
        match self {
            Self::Supervisor
            | Self::Keeper
            | Self::Init
            | Self::SupervisorAndKeeper
            | Self::SupervisorAndInit => true,
            Self::KeeperAndInit | Self::All | Self::Namespace => false,
        }
    }

    /// Whether `up` has to be run again.
    pub fn ends_init(self) -> bool {
        self.roles().contains(&"init")
    }

    /// For the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::Keeper => "keeper",
            Self::Init => "init",
            Self::SupervisorAndKeeper => "supervisor+keeper",
            Self::SupervisorAndInit => "supervisor+init",
            Self::KeeperAndInit => "keeper+init",
            Self::All => "all three",
            Self::Namespace => "init as PID 1",
        }
    }
}

/// How a run of a job is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Never by itself.
    Never,
    /// With this code.
    Code(i64),
    /// By this signal.
    Signal(i64),
}

/// One job.
#[derive(Debug, Clone)]
pub struct Plan {
    pub name: String,
    /// Lines of a whole run; 0 for ever.
    pub lines: u64,
    pub end: End,
    pub config: String,
}

/// A third writes for ever, the others end with a known code or signal after a while and are restarted.
pub fn jobs(count: usize, random: &mut Random) -> Vec<Plan> {
    (0..count).map(|n| one(n, random)).collect()
}

fn one(n: usize, random: &mut Random) -> Plan {
    let name = format!("j{n}");
    let each_ms = random.between(1, 10);
    let verb = if n % 4 == 1 { "lines-err" } else { "lines" };
    let rude = if n % 5 == 2 { "nonblock " } else { "" };
    let (lines, end, last) = match n % 3 {
        0 => (0, End::Never, String::new()),
        1 => {
            let code = i64::try_from(n + 10).unwrap();
            (random.between(20, 300), End::Code(code), format!("exit {code}"))
        }
        _ => (random.between(1, 200), End::Signal(10), "signal USR1".to_owned()),
    };
    let script =
        format!("lock @dir@/{name}.lock mark @dir@/marks {rude}{verb} {lines} {each_ms}ms {{run}} {last}");
    let output = match n % 6 {
        3 => "output = { mode = \"separate\" }\n",
        4 => "output = { max_size = \"2KiB\", keep = 100000, compress = false }\n",
        5 => "output = { max_size = \"2KiB\", keep = 100000, compress = true }\n",
        _ => "",
    };
    let policy = "restart = \"always\"\nbackoff = { initial = \"5ms\", max = \"20ms\" }\n\
                  start_limit = { count = 0 }\n";
    Plan { config: job(&name, &script, &format!("{policy}{output}")), name, lines, end }
}
