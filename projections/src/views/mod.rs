//! The views that follow the log, each as the SQL that takes a page of it in.
//!
//! Every statement takes the page as `$1 < position <= $2`. `$3` are users: of `apply` those to be
//! left out, of `forget` and `anew` those who are folded from the whole of their log instead.
//! `{v}` stands for the version of the view; in `apply`, `{known}` for the position by which ends
//! may be known, that of the page's end or beyond it; in `forget` and `anew`, `{upto}` for the
//! position up to which users are folded, and `{sign}` for taking out or putting in, where sums are
//! kept.

/// One view.
#[derive(Debug)]
pub struct View {
    /// Its name, which is also the stable name of its table.
    pub name: &'static str,
    /// Takes a page in.
    pub(crate) apply: &'static [&'static str],
    /// Takes users out, as they stood before the page.
    forget: &'static str,
    /// Puts users in again, as they stand after the page.
    anew: &'static str,
    /// Who has to be folded anew.
    pub(crate) collides: &'static [&'static str],
    /// Whether a build begins with one user after the other, instead of with the first page: where
    /// rows of one user lie together, and none has to be in the order of the log.
    pub fills: bool,
}

const IMPORTS: &str = include_str!("anew.sql");

/// All views, in the order in which they follow.
pub static VIEWS: [View; 4] = [
    View {
        name: "status_span",
        apply: &[include_str!("status_span.sql")],
        forget: include_str!("status_span_forget.sql"),
        anew: include_str!("status_span_anew.sql"),
        collides: &[IMPORTS, include_str!("status_span_collides.sql")],
        fills: true,
    },
    View {
        name: "session_span",
        apply: &[include_str!("session_span.sql"), include_str!("session_span_hidden.sql")],
        forget: include_str!("session_span_forget.sql"),
        anew: include_str!("session_span_anew.sql"),
        collides: &[],
        fills: false,
    },
    View {
        name: "occupancy",
        apply: &[include_str!("occupancy.sql")],
        forget: include_str!("occupancy_fold.sql"),
        anew: include_str!("occupancy_fold.sql"),
        collides: &[IMPORTS],
        fills: false,
    },
    View {
        name: "status_daily",
        apply: &[include_str!("status_daily.sql")],
        forget: include_str!("status_daily_forget.sql"),
        anew: include_str!("status_daily_anew.sql"),
        collides: &[IMPORTS],
        fills: true,
    },
];

/// The view of that name.
pub fn find(name: &str) -> Option<&'static View> {
    VIEWS.iter().find(|view| view.name == name)
}

impl View {
    /// The statement that takes users out as they stood before the page.
    pub(crate) fn forget(&self, version: i32) -> String {
        let statement = self.forget.replace("{sign}", "-").replace("{upto}", "$1");
        Self::statement(&statement, version)
    }

    /// The statement that puts users in as they stand after the page.
    pub(crate) fn anew(&self, version: i32) -> String {
        let statement = self.anew.replace("{sign}", "+").replace("{upto}", "$2");
        Self::statement(&statement, version)
    }

    /// A statement of this view, for one of its versions.
    pub(crate) fn statement(template: &str, version: i32) -> String {
        template.replace("{v}", &version.to_string())
    }
}
