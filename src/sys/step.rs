//! The steps of a start, by the numbers that a child tells its failure with.

/// What was being done when a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Making the process.
    Clone = 1,
    /// A session of its own.
    Session = 2,
    /// Registering with init: the spawner was replaced meanwhile.
    Register = 3,
    /// Standard input.
    Stdin = 4,
    /// Standard output.
    Stdout = 5,
    /// Standard error.
    Stderr = 6,
    /// A resource limit.
    Rlimit = 7,
    /// Niceness.
    Nice = 8,
    /// Out-of-memory score.
    OomScore = 9,
    /// The start decision was won by somebody else, or could not be written.
    Claim = 10,
    /// Supplementary groups.
    Groups = 11,
    /// Group.
    Group = 12,
    /// User.
    User = 13,
    /// Working directory.
    Chdir = 14,
    /// The program itself.
    Exec = 15,
    /// Killed before it could execute.
    Killed = 16,
    /// Its control group.
    Cgroup = 17,
    /// The descriptor by which it says that it is ready.
    ReadyFd = 18,
}

impl Step {
    /// The word for it in an outcome.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clone => "clone",
            Self::Session => "session",
            Self::Register => "register",
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Rlimit => "rlimit",
            Self::Nice => "nice",
            Self::OomScore => "oom_score_adj",
            Self::Claim => "claim",
            Self::Groups => "groups",
            Self::Group => "group",
            Self::User => "user",
            Self::Chdir => "chdir",
            Self::Exec => "exec",
            Self::Killed => "killed before exec",
            Self::Cgroup => "cgroup",
            Self::ReadyFd => "ready_fd",
        }
    }

    /// Reads back the number that a child wrote.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Clone,
            2 => Self::Session,
            3 => Self::Register,
            4 => Self::Stdin,
            5 => Self::Stdout,
            6 => Self::Stderr,
            7 => Self::Rlimit,
            8 => Self::Nice,
            9 => Self::OomScore,
            10 => Self::Claim,
            11 => Self::Groups,
            12 => Self::Group,
            13 => Self::User,
            14 => Self::Chdir,
            15 => Self::Exec,
            16 => Self::Killed,
            17 => Self::Cgroup,
            18 => Self::ReadyFd,
            _ => return None,
        })
    }
}
