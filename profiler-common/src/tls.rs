//! How functions of a TLS library pass plaintext. User space finds the functions and tells the kernel side by the cookie
//! of each probe which kind it is.

/// How a function passes bytes. Its first arguments are the connection, the buffer and the room in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passing {
    /// [`SENT`](crate::wire::SENT) or [`RECEIVED`](crate::wire::RECEIVED).
    pub direction: u8,
    /// Which argument, from 0, is the address where the function puts how many bytes it passed; 0 where that is its
    /// result.
    pub length_argument: u8,
}

impl Passing {
    /// What the probe at its entry is given.
    #[must_use]
    pub const fn cookie(self) -> u64 {
        u64::from_le_bytes([self.direction, self.length_argument, 0, 0, 0, 0, 0, 0])
    }

    /// Of which function a cookie is.
    #[must_use]
    pub const fn from_cookie(cookie: u64) -> Self {
        let [direction, length_argument, ..] = cookie.to_le_bytes();
        Self {
            direction,
            length_argument,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Passing;

    /// A function is known by its cookie.
    #[test]
    fn cookies_are_reversible() {
        for (direction, length_argument) in [(0, 0), (1, 0), (0, 4), (1, 3)] {
            let passing = Passing {
                direction,
                length_argument,
            };
            assert_eq!(Passing::from_cookie(passing.cookie()), passing);
        }
    }
}
