//! PKCS#11 sessions.
