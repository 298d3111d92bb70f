//! The module's one way in; everything behind it is `kryoptic-lib`.

use kryoptic_lib::{fns::general::fn_get_function_list, pkcs11};

/// PKCS#11 2.40, 5.4: where every other function is found.
// SAFETY: no other C_GetFunctionList is linked into this module.
#[unsafe(no_mangle)]
pub extern "C" fn C_GetFunctionList(list: pkcs11::CK_FUNCTION_LIST_PTR_PTR) -> pkcs11::CK_RV {
    fn_get_function_list(list)
}
