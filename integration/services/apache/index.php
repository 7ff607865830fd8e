<?php
// What integration/loads/apache and its other one ask for, by `do`.
session_start();
switch ($_GET['do'] ?? '') {
    case 'health':
        echo 'well';
        break;
    case 'visits':
        echo $_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
        break;
    case 'upload':
        // Files come to be in the folder for temporary ones, whatever their size.
        echo hash_file('sha256', $_FILES['file']['tmp_name']);
        break;
    case 'password':
        echo password_verify('stone', password_hash('stone', PASSWORD_DEFAULT)) ? 'right' : 'wrong';
        break;
    case 'spill':
        $large = new SplTempFileObject(1024);
        for ($n = 0; $n < 5000; $n++) {
            $large->fwrite("line $n\n");
        }
        $file = tempnam(sys_get_temp_dir(), 'spill');
        chmod($file, 0600);
        rename($file, "$file.done");
        unlink("$file.done");
        echo 'spilt';
        break;
    case 'lookup':
        echo gethostbyname('localhost');
        break;
    case 'wait':
        sleep(2);
        echo 'waited';
        break;
    case 'memory':
        echo strlen(str_repeat('x', 60000000));
        break;
    case 'fatal':
        not_a_function();
    case 'crash':
        posix_kill(posix_getpid(), 11);
        sleep(5);
    default:
        echo '<!doctype html><title>lithify</title><p>This page is made in stone.';
}
