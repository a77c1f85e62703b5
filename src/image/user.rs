//! A user of an image, from the image's own `/etc/passwd` and `/etc/group`.

use super::ImageError;

/// Who the process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home folder, `/` when the image names none.
    pub home: String,
}

/// A line of `/etc/passwd`.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// A line of `/etc/group`.
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Finds the user that a text such as `www`, `33`, `www:adm` or `33:4` means,
/// given the texts of `/etc/passwd` and `/etc/group` (empty when the image has
/// none). A group that is given leaves out the supplementary ones, as
/// container engines have it. A number needs no line.
///
/// # Errors
///
/// When a name has no line.
pub fn find_user(text: &str, passwd: &str, group: &str) -> Result<User, ImageError> {
    let unknown = |reason: String| ImageError::User { text: text.to_owned(), reason };
    let (wanted, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let wanted = if wanted.is_empty() { "0" } else { wanted };
    let number = id(wanted);
    // Lines that make no sense are passed over, as libc does.
    let account = passwd.lines().filter_map(account).find(|account| {
        // A name of digits alone is a number to engines only if no line has it.
        account.name == wanted || Some(account.uid) == number
    });
    let (uid, own_gid, name, home) = match (&account, number) {
        (Some(account), _) => (account.uid, account.gid, account.name, account.home),
        (None, Some(uid)) => (uid, 0, "", ""),
        (None, None) => {
            return Err(unknown(format!("the image's /etc/passwd has no `{wanted}`")));
        }
    };
    let mut groups: Vec<u32> = Vec::new();
    let gid = match wanted_group {
        None => {
            let of_user = group.lines().filter_map(group_line).filter(|group| {
                !name.is_empty() && group.members.split(',').any(|member| member.trim() == name)
            });
            groups.extend(of_user.map(|group| group.gid));
            groups.sort_unstable();
            groups.dedup();
            own_gid
        }
        Some(wanted) => {
            let line = group.lines().filter_map(group_line).find(|group| group.name == wanted);
            line.map(|line| line.gid)
                .or_else(|| id(wanted))
                .ok_or_else(|| unknown(format!("the image's /etc/group has no `{wanted}`")))?
        }
    };
    let home = if home.is_empty() { "/" } else { home };
    Ok(User { uid, gid, groups, home: home.to_owned() })
}

/// An id; the largest number means "no change" to the kernel.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn account(line: &str) -> Option<Account<'_>> {
    let fields: Vec<&str> = line.split(':').collect();
    match fields.as_slice() {
        [name, _, uid, gid, _, home, ..] if !name.is_empty() => {
            Some(Account { name, uid: id(uid)?, gid: id(gid)?, home })
        }
        _ => None,
    }
}

fn group_line(line: &str) -> Option<Group<'_>> {
    let fields: Vec<&str> = line.split(':').collect();
    match fields.as_slice() {
        [name, _, gid, members, ..] => Some(Group { name, gid: id(gid)?, members }),
        [name, _, gid] => Some(Group { name, gid: id(gid)?, members: "" }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nwww:x:33:34::/srv:\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:syslog,www\nbroken:x:y:www\nvideo:x:44: www\n";

    fn found(text: &str) -> (u32, u32, Vec<u32>, String) {
        let user = find_user(text, PASSWD, GROUP).expect("found");
        (user.uid, user.gid, user.groups, user.home)
    }

    #[test]
    fn names_and_numbers_are_found() {
        assert_eq!(found(""), (0, 0, vec![], "/root".to_owned()));
        assert_eq!(found("www"), (33, 34, vec![4, 44], "/srv".to_owned()));
        assert_eq!(found("33"), found("www"));
        assert_eq!(found("www:adm"), (33, 4, vec![], "/srv".to_owned()));
        assert_eq!(found("www:"), found("www"));
        assert_eq!(found("www:7"), (33, 7, vec![], "/srv".to_owned()));
        assert_eq!(found("1234:5678"), (1234, 5678, vec![], "/".to_owned()));
        assert_eq!(found("1234"), (1234, 0, vec![], "/".to_owned()));
        assert_eq!(find_user("7", "", "").expect("a number").uid, 7);
    }

    #[test]
    fn what_is_not_there_is_named() {
        for (text, part) in [
            ("nobody", "/etc/passwd has no `nobody`"),
            ("www:nogroup", "/etc/group has no `nogroup`"),
            ("-1", "no `-1`"),
            ("4294967295", "no `4294967295`"),
            ("4294967296:0", "no `4294967296`"),
        ] {
            let error = find_user(text, PASSWD, GROUP).expect_err("refused").to_string();
            assert!(error.contains(part) && error.contains(text), "{error}");
        }
    }
}
