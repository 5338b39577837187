//! The node agent's interface `dev.siforge.Agent`: varlink (JSON + NUL over a Unix stream socket) with file descriptors
//! passed by SCM_RIGHTS. The contract that agent, CLI and SPANK plugin read. Synchronous, tiny.
//!
//! default socket: /run/siforge/agent.sock
//! methods: Mount, Warm, Release, Resolve, Status, (varlink: org.varlink.service.GetInfo, GetInterfaceDescription)
