//! How big a race is: small in every run of the suite, as big as somebody asks for elsewhere.

/// Names a number, such as 10000, that the races are sized by.
pub const VARIABLE: &str = "ROLLCALL_TEST_RACES";

/// So many of something: `suite`, or, where [`VARIABLE`] is set, one for each `per` of its number.
pub fn races(suite: usize, per: usize) -> usize {
    std::env::var(VARIABLE).map_or(suite, |number| number.parse::<usize>().unwrap() / per)
}

/// Whether this run is one of the big ones.
pub fn is_big() -> bool {
    std::env::var_os(VARIABLE).is_some()
}
