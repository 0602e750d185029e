// The numbers of PKCS#11 that we use (OASIS PKCS#11 Specification 2.40 and 3.1, pkcs11t.h), nothing more.

/** Return values by number, named as the specification names them. Others are shown as numbers. */
const returnNames: Readonly<Record<number, string>> = {
  0x02: 'CKR_HOST_MEMORY',
  0x03: 'CKR_SLOT_ID_INVALID',
  0x05: 'CKR_GENERAL_ERROR',
  0x06: 'CKR_FUNCTION_FAILED',
  0x07: 'CKR_ARGUMENTS_BAD',
  0x20: 'CKR_DATA_INVALID',
  0x21: 'CKR_DATA_LEN_RANGE',
  0x30: 'CKR_DEVICE_ERROR',
  0x31: 'CKR_DEVICE_MEMORY',
  0x32: 'CKR_DEVICE_REMOVED',
  0x40: 'CKR_ENCRYPTED_DATA_INVALID',
  0x41: 'CKR_ENCRYPTED_DATA_LEN_RANGE',
  0x42: 'CKR_AEAD_DECRYPT_FAILED',
  0x60: 'CKR_KEY_HANDLE_INVALID',
  0x63: 'CKR_KEY_TYPE_INCONSISTENT',
  0x68: 'CKR_KEY_FUNCTION_NOT_PERMITTED',
  0x70: 'CKR_MECHANISM_INVALID',
  0x71: 'CKR_MECHANISM_PARAM_INVALID',
  0x82: 'CKR_OBJECT_HANDLE_INVALID',
  0xa0: 'CKR_PIN_INCORRECT',
  0xa1: 'CKR_PIN_INVALID',
  0xa2: 'CKR_PIN_LEN_RANGE',
  0xa3: 'CKR_PIN_EXPIRED',
  0xa4: 'CKR_PIN_LOCKED',
  0xb0: 'CKR_SESSION_CLOSED',
  0xb1: 'CKR_SESSION_COUNT',
  0xb3: 'CKR_SESSION_HANDLE_INVALID',
  0xb5: 'CKR_SESSION_READ_ONLY',
  0xd0: 'CKR_TEMPLATE_INCOMPLETE',
  0xd1: 'CKR_TEMPLATE_INCONSISTENT',
  0xe0: 'CKR_TOKEN_NOT_PRESENT',
  0xe1: 'CKR_TOKEN_NOT_RECOGNIZED',
  0xe2: 'CKR_TOKEN_WRITE_PROTECTED',
  0x100: 'CKR_USER_ALREADY_LOGGED_IN',
  0x101: 'CKR_USER_NOT_LOGGED_IN',
  0x102: 'CKR_USER_PIN_NOT_INITIALIZED',
  0x103: 'CKR_USER_TYPE_INVALID',
  0x150: 'CKR_BUFFER_TOO_SMALL',
  0x190: 'CKR_CRYPTOKI_NOT_INITIALIZED',
  0x191: 'CKR_CRYPTOKI_ALREADY_INITIALIZED',
};

export const alreadyInitialized = 0x191;
export const alreadyLoggedIn = 0x100;

/** The session or the login is gone; another one may work. */
export const sessionLost: readonly number[] = [0x30, 0x32, 0x60, 0x82, 0xb0, 0xb3, 0xe0, 0x101, 0x190];
/** The PIN was refused: trying again would lock the token. */
export const pinRefused: readonly number[] = [0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0x102];
/** The mechanism or its parameters are not what this module expects. */
export const parametersRefused: readonly number[] = [0x07, 0x70, 0x71];
/** The ciphertext does not authenticate. */
export const notAuthentic: readonly number[] = [0x20, 0x40, 0x41, 0x42];
/** Perhaps that, perhaps a broken device: SoftHSM answers a wrong tag with the first one. */
export const perhapsNotAuthentic: readonly number[] = [0x05, 0x06];

export const mechanism = { aesKeyGen: 0x1080, aesGcm: 0x1087 } as const;
export const session = { readWrite: 0x02, serial: 0x04 } as const;
export const osLocking = 0x02;
export const normalUser = 1;
export const secretKeyClass = 4;
export const aesKeyType = 0x1f;

export const attribute = {
  class: 0x00,
  token: 0x01,
  private: 0x02,
  label: 0x03,
  keyType: 0x100,
  sensitive: 0x103,
  encrypt: 0x104,
  decrypt: 0x105,
  wrap: 0x106,
  unwrap: 0x107,
  valueLen: 0x161,
  extractable: 0x162,
} as const;

/** What a module answered other than CKR_OK. Holds numbers and names only. */
export class Pkcs11Error extends Error {
  /** Name of the function, like C_Login. */
  readonly call: string;
  readonly value: number;

  constructor(call: string, value: number) {
    super(`${call}: ${returnNames[value] ?? 'an unknown return value'} (0x${value.toString(16)})`);
    this.name = 'Pkcs11Error';
    this.call = call;
    this.value = value;
  }
}

/** True when `error` is one of `values` from a module. */
export function isPkcs11Error(error: unknown, values: readonly number[]): error is Pkcs11Error {
  return error instanceof Pkcs11Error && values.includes(error.value);
}
