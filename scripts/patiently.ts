// Imported into a test that takes the time that others leave.

import { constants, setPriority } from 'node:os';

setPriority(constants.priority.PRIORITY_LOW);
